//! A queue of lines with a thread that writes them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// How long lines are collected after others were written: to write and to wake for each would cost more than the line itself.
const COLLECT: Duration = Duration::from_millis(2);
/// How many bytes are written at once when lines have piled up.
const BATCH: usize = 64 << 10;
/// How long the thread waits after an error, and when a pipe that must not block is full.
const RETRY_DELAY: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(10);
/// What a queued line takes beside its text, in bytes.
const OVERHEAD: usize = 64;

/// Where lines go.
#[derive(Clone, Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, to which they are appended.
    File(PathBuf),
}

impl Output {
    /// Opens it. The text is what comes before the next line: the end of a line that another process left unfinished.
    fn open(&self) -> io::Result<(File, &'static [u8])> {
        let descriptor = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
            Self::File(path) => {
                let file = File::options().create(true).append(true).open(path)?;
                let first: &[u8] = if file.metadata()?.is_file() && is_unfinished(path) { b"\n" } else { b"" };
                return Ok((file, first));
            }
        };
        Ok((descriptor.into(), b""))
    }
}

/// Whether a file ends within a line. One that cannot be read counts as finished.
fn is_unfinished(path: &Path) -> bool {
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != *b"\n"
}

enum Message {
    Line(Vec<u8>),
    /// There is something to do besides lines.
    Wake,
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// Lines that wait to be written. To queue one never waits for who reads them.
#[derive(Clone)]
pub struct LineQueue {
    sender: Sender<Message>,
    /// Memory of the lines that are not written yet, in bytes.
    queued: Arc<AtomicUsize>,
    reopen: Arc<AtomicBool>,
}

impl LineQueue {
    /// Starts the thread that writes to this output; `name` is for the log.
    ///
    /// # Errors
    /// When the output cannot be opened, or the thread not be started.
    pub fn start(name: &'static str, output: Output) -> io::Result<Self> {
        let (file, first) = output.open()?;
        Self::start_with(name, output, file, first)
    }

    fn start_with(name: &'static str, output: Output, file: File, first: &[u8]) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let (queued, reopen) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let writer = Writer {
            name,
            output,
            file,
            receiver,
            queued: queued.clone(),
            reopen: reopen.clone(),
            batch: first.to_vec(),
            written: 0,
        };
        thread::Builder::new().name(name.replace(' ', "-")).spawn(move || writer.run())?;
        Ok(Self { sender, queued, reopen })
    }

    /// How much memory the lines take that are not written yet, in bytes.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Queues a line, with its line end, unless this many bytes are queued already. Returns whether it did.
    #[must_use]
    pub fn push(&self, line: Vec<u8>, max: usize) -> bool {
        if self.queued() >= max {
            return false;
        }
        self.queued.fetch_add(line.capacity() + OVERHEAD, Ordering::Relaxed);
        self.sender.send(Message::Line(line)).is_ok()
    }

    /// Opens a file anew: it was moved. A line of which a part is written is written again as a whole.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        let _ = self.sender.send(Message::Wake);
    }

    /// Waits until everything that is queued now is written. Returns whether it is, after this time at the latest.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, written) = sync_channel(1);
        self.sender.send(Message::Flush(done)).is_ok() && written.recv_timeout(timeout).is_ok()
    }
}

/// What the thread has.
struct Writer {
    name: &'static str,
    output: Output,
    file: File,
    receiver: Receiver<Message>,
    queued: Arc<AtomicUsize>,
    reopen: Arc<AtomicBool>,
    /// Lines that are being written, and how many bytes of them are.
    batch: Vec<u8>,
    written: usize,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.receiver.recv() {
            let (mut memory, mut flushed, mut next) = (0, Vec::new(), Some(message));
            while let Some(message) = next {
                match message {
                    Message::Line(line) => {
                        memory += line.capacity() + OVERHEAD;
                        self.batch.extend_from_slice(&line);
                    }
                    Message::Wake => {}
                    Message::Flush(done) => flushed.push(done),
                }
                next = if self.batch.len() < BATCH { self.receiver.try_recv().ok() } else { None };
            }
            let is_behind = self.batch.len() >= BATCH;
            self.reopen_if_due();
            self.write();
            self.queued.fetch_sub(memory, Ordering::Relaxed);
            for done in flushed {
                let _ = done.send(());
            }
            if !is_behind {
                thread::sleep(COLLECT);
            }
        }
    }

    /// Writes the batch, for as long as that takes: each attempt goes on where the last one ended.
    fn write(&mut self) {
        let mut failed = false;
        while let Some(rest @ [_, ..]) = self.batch.get(self.written..) {
            match self.file.write(rest) {
                Ok(0) => thread::sleep(POLL),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL),
                Err(error) => {
                    if !failed {
                        tracing::error!(output = self.name, %error, "failed to write lines; retrying");
                    }
                    failed = true;
                    thread::sleep(RETRY_DELAY);
                    self.reopen_if_due();
                }
            }
        }
        if failed {
            tracing::info!(output = self.name, "lines are written again");
        }
        self.batch.clear();
        self.written = 0;
    }

    fn reopen_if_due(&mut self) {
        if !self.reopen.swap(false, Ordering::Relaxed) || !matches!(self.output, Output::File(_)) {
            return;
        }
        match self.output.open() {
            Ok((file, first)) => {
                let line = self.batch[..self.written].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                self.batch.splice(..line, first.iter().copied());
                (self.file, self.written) = (file, 0);
            }
            Err(error) => tracing::error!(output = self.name, %error, "failed to open a file anew; keeping the former"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, PipeReader, pipe};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(number: usize) -> Vec<u8> {
        format!("{number:05} {}\n", "x".repeat(500)).into_bytes()
    }

    /// A queue that writes into a pipe, as standard output mostly is.
    fn piped(nonblocking: bool) -> (LineQueue, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let file = if nonblocking {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _entered = runtime.enter();
            let sender = tokio::net::unix::pipe::Sender::from_owned_fd(writer.into()).unwrap();
            File::from(sender.into_nonblocking_fd().unwrap())
        } else {
            File::from(OwnedFd::from(writer))
        };
        (LineQueue::start_with("lines", Output::Stdout, file, b"").unwrap(), reader)
    }

    fn folder(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("credence-lines-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_reader_that_stalls_stops_nobody_and_gets_every_queued_line() {
        for nonblocking in [false, true] {
            let (queue, reader) = piped(nonblocking);
            let (began, max) = (Instant::now(), 256 << 10);
            let queued = (0..2000).take_while(|number| queue.push(line(*number), max)).count();
            assert!((100..2000).contains(&queued), "the pipe takes 64 KiB and the queue 256: {queued} lines");
            assert!(!queue.push(line(0), max) && queue.push(line(queued), usize::MAX), "others may go beyond");
            assert!(!queue.flush(Duration::from_millis(100)), "nobody has read anything");
            assert!(began.elapsed() < 5 * SECOND);
            let reading = thread::spawn(move || BufReader::new(reader).lines().take(queued + 1).collect::<Vec<_>>());
            assert!(queue.flush(30 * SECOND));
            for (number, read) in reading.join().unwrap().into_iter().enumerate() {
                assert_eq!(read.unwrap() + "\n", String::from_utf8(line(number)).unwrap());
            }
            assert_eq!(queue.queued(), 0);
        }
    }

    #[test]
    fn a_line_is_written_at_once() {
        let (queue, mut reader) = piped(false);
        assert!(queue.push(b"one\n".to_vec(), 1));
        let mut read = [0; 4];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, *b"one\n");
    }

    #[test]
    fn a_full_disk_loses_no_queued_line_and_a_new_file_takes_them() {
        let folder = folder("full");
        let path = folder.join("audit.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let queue = LineQueue::start("lines", Output::File(path.clone())).unwrap();
        assert!(queue.push(b"one\n".to_vec(), 1000));
        assert!(!queue.flush(SECOND / 2), "no space left on device");
        fs::remove_file(&path).unwrap();
        queue.reopen();
        assert!(queue.push(b"two\n".to_vec(), 1000) && queue.flush(10 * SECOND));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_reader_that_is_gone_ends_nothing() {
        let (queue, reader) = piped(false);
        drop(reader);
        assert!(queue.push(b"one\n".to_vec(), 1) && !queue.flush(SECOND / 2));
        assert!(!queue.push(b"two\n".to_vec(), 1), "the first one still waits");
    }

    #[test]
    fn a_line_that_another_process_left_unfinished_does_not_swallow_the_next() {
        let folder = folder("half");
        let path = folder.join("audit.log");
        for (before, after) in [("", "one\n"), ("whole\n", "whole\none\n"), ("{\"ha", "{\"ha\none\n")] {
            fs::write(&path, before).unwrap();
            let queue = LineQueue::start("lines", Output::File(path.clone())).unwrap();
            assert!(queue.push(b"one\n".to_vec(), 1) && queue.flush(10 * SECOND));
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_of_which_a_part_was_written_is_whole_in_the_new_file() {
        let folder = folder("part");
        let path = folder.join("audit.log");
        let (_, receiver) = channel();
        let (file, batch) = (File::open("/dev/null").unwrap(), b"one\ntwo\nthree\n".to_vec());
        let output = Output::File(path.clone());
        let (queued, reopen) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let mut writer = Writer { name: "lines", output, file, receiver, queued, reopen, batch, written: 6 };
        writer.reopen_if_due();
        writer.write();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\nthree\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
