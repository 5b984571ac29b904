//! Running the program to its end, as a user at a terminal does.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{harness::POLL, program};

/// How long any command may take. One that needs longer hangs.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The last line of stdout, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("nothing on stdout: {self:?}"));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{last:?} is no JSON: {error}"))
    }

    /// Asserts that the command succeeded.
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts that the command failed with this exit code and said so in one sentence with this error
    /// code, and with advice.
    pub(crate) fn refused(&self, exit: i32, code: &str) {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.contains("error[")).collect();
        assert_eq!(self.code, exit, "{self:?}");
        assert_eq!(errors.len(), 1, "one sentence, once: {self:?}");
        assert!(errors[0].contains(&format!("error[{code}]: ")), "{self:?}");
        assert!(errors[0].contains("; next: "), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        assert_eq!(self.stdout, "", "stdout is for data");
    }
}

/// Runs the program with these arguments until it ends; it must end by itself.
pub(crate) async fn run(args: &[&str]) -> Finished {
    run_within(args, COMMAND_DEADLINE).await
}

/// Like [`run`], with another time it may take.
pub(crate) async fn run_within(args: &[&str], deadline: Duration) -> Finished {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (out, err) = (dir.path().join("stdout"), dir.path().join("stderr"));
    let create = |path| File::create(path).expect("a file in a new directory");
    let mut command = Command::new(program());
    command.args(args).current_dir(dir.path()).stdin(Stdio::null());
    without_settings(&mut command);
    let child = command.stdout(create(&out)).stderr(create(&err)).spawn().expect("the program starts");
    let mut child = Killed(child);

    let until = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.0.try_wait().expect("a child of ours") {
            break status;
        }
        let said = || fs::read_to_string(&err).unwrap_or_default();
        assert!(Instant::now() < until, "{args:?} hangs: {}", said());
        sleep(POLL).await;
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("written by the child")).into_owned();
    Finished { code: status.code().unwrap_or(-1), stdout: read(&out), stderr: read(&err) }
}

/// Keeps the settings of whoever runs the tests away from the processes.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KOTOBA_") {
            command.env_remove(name);
        }
    }
}

/// A child process that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
