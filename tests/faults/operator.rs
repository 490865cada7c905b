//! An operator for one test: the program and arguments of the bed's operator, which is stopped meanwhile and
//! restarted when this one is dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::MutexGuard;

use crate::bed::{Bed, OPERATOR, run, until};

pub struct Operator<'a> {
    bed: &'a Bed,
    child: Option<Child>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    port: u16,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Operator<'a> {
    /// Stops the operator of the bed, and starts another one with additional arguments and variables.
    pub async fn start(bed: &'a Bed, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::begin(bed, |_| true, arguments, environment).await
    }

    /// Stops the operator of the bed, and starts another one without this option, which is one argument with its value.
    pub async fn start_without(bed: &'a Bed, option: &str) -> Self {
        Self::begin(bed, |argument| !argument.starts_with(option), &[], &[]).await
    }

    async fn begin(
        bed: &'a Bed,
        keeps: impl Fn(&str) -> bool,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let alone = OPERATOR.lock().await;
        // An earlier test may have restarted the operator since this bed was opened.
        let pid = Bed::open().await.env("OPERATOR_PID").to_owned();
        let read = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            text.split_terminator('\0').map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut all = read("cmdline").split_off(1);
        all.retain(|argument| keeps(argument));
        all.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        all.extend(arguments.iter().map(ToString::to_string));
        let mut variables: Vec<(String, String)> = read("environ")
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        variables.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        bed.part("stop", "operator");
        let mut operator = Self { bed, child: None, arguments: all, environment: variables, port, _alone: alone };
        operator.spawn();
        operator.says("working").await;
        operator
    }

    /// Starts the process, also after [`Self::kill`].
    pub fn spawn(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(format!("{}/logs/fault-operator.log", self.bed.env("BED_DIR")))
            .unwrap();
        let child = Command::new(format!("{}/bin/credence", self.bed.env("BED_DIR")))
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Kills it with SIGKILL, as the kernel does when memory is short.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The body of a response of its HTTP server.
    pub fn get(&self, path: &str) -> String {
        run("curl", &["--silent", "--max-time", "5", &format!("http://127.0.0.1:{}/{path}", self.port)], "").1
    }

    /// Waits until `/readyz` has this text.
    pub async fn says(&self, wanted: &str) {
        until(&format!("the operator to report {wanted}"), || async {
            let answer = self.get("readyz");
            if answer.trim() == wanted { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    /// The sum of all samples whose line starts with this text.
    pub fn metric(&self, beginning: &str) -> f64 {
        let text = self.get("metrics");
        let lines = text.lines().filter(|line| line.starts_with(beginning));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // SIGTERM releases the lease, so that the bed's operator takes over at once. SIGCONT first, in case it is paused.
            for signal in ["-CONT", "-TERM"] {
                run("kill", &[signal, &child.id().to_string()], "");
            }
            let ended = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                child.try_wait().is_ok_and(|status| status.is_some())
            });
            if !ended {
                let _ = child.kill();
            }
        }
        self.bed.part("start", "operator");
    }
}
