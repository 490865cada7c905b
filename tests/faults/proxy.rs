//! A TCP proxy between the operator and a server that can delay, cut or hang connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How the proxy behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Closes open and new connections.
    Cut,
    /// Keeps connections open, and forwards nothing.
    Hang,
    /// Waits before it forwards each chunk.
    Slow(Duration),
    /// Forwards requests, and closes the connection instead of forwarding a response.
    LoseAnswers,
}

pub struct Proxy {
    pub address: String,
    mode: Arc<watch::Sender<Mode>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to this target.
    pub async fn to(target: &str) -> Self {
        Self::between("127.0.0.1:0", target).await
    }

    /// The same at an address that others know already.
    pub async fn between(address: &str, target: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let (target, modes) = (target.to_owned(), mode.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target.clone(), modes.subscribe()));
            }
        });
        Self { address, mode, accepting }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes open connections, and continues in this mode.
    pub async fn cut(&self, then: Mode) {
        self.set(Mode::Cut);
        // Every connection must notice the mode.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.set(then);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Cut);
        self.accepting.abort();
    }
}

async fn connect(client: TcpStream, target: String, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let both_ways = async {
        let server = TcpStream::connect(target).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // When either side closes, both are closed.
        tokio::select! {
            ended = pass(from_client, to_server, mode.clone(), false) => ended,
            ended = pass(from_server, to_client, mode, true) => ended,
        }
    };
    tokio::select! {
        _ = both_ways => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
    answers: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        // The sender of modes is dropped when the test ends.
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Hang).await.map(|mode| *mode) else { return Ok(()) };
        match now {
            Mode::Slow(pause) => tokio::time::sleep(pause).await,
            Mode::LoseAnswers if answers => return Ok(()),
            _ => {}
        }
        to.write_all(&buffer[..length]).await?;
    }
}
