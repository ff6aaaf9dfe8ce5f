//! The built binary as a child, what it says line by line, and the files that it is given.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::watch;
use usage_proxy::{
    shutdown::Shutdown,
    simulator::{Simulator, SimulatorHandle, SimulatorOptions},
};

/// Longer than anything takes: a test that waits in vain fails, and says what for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test, which sees nothing of the environment that configures a service.
pub(crate) fn usage_proxy() -> Command {
    without_configuration(Command::new(env!("CARGO_BIN_EXE_usage-proxy")))
}

/// The binary under test, started by a shell that first does something to the process.
pub(crate) fn usage_proxy_after(preparation: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{preparation}; exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_usage-proxy"));
    without_configuration(shell)
}

fn without_configuration(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("USAGE_PROXY_") {
            command.env_remove(name);
        }
    }
    command
}

/// A child that ends with the test.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

/// What a child has said on one of its outputs.
#[derive(Clone)]
pub(crate) struct Lines(watch::Receiver<Vec<String>>);

// === impl Running ===

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, Stdio::null())
    }

    pub(crate) fn start_with_input(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Starts a child whose standard error is read up to a line with `part` and no further.
    pub(crate) fn start_unread_after(command: &mut Command, part: &'static str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr: Lines::up_to(part, child.stderr.take().unwrap()),
            child,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {}", self.id()))
            .status();
        assert!(sent.unwrap().success(), "no signal {name} could be sent");
    }

    /// Waits until the child has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.stdout.end().await;
        self.stderr.end().await;
        // Nothing holds its outputs any more, so this takes no time.
        self.child.wait().unwrap()
    }

    /// Ends the child at once, by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        let killed = self.child.wait().unwrap();
        assert_eq!(killed.signal(), Some(9), "{killed}:\n{}", self.transcript());
    }

    /// Everything that it has said so far.
    pub(crate) fn transcript(&self) -> String {
        format!("{}\n{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// === impl Lines ===

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        Self::read(output, |_| false)
    }

    /// Reads no further than the first line with `part`, and leaves the output open.
    fn up_to(part: &'static str, output: impl Read + Send + 'static) -> Self {
        Self::read(output, move |line| line.contains(part))
    }

    fn read(
        output: impl Read + Send + 'static,
        is_enough: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        let (told, lines) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                let said = String::from_utf8_lossy(&line).trim_end().to_owned();
                let enough = is_enough(&said);
                told.send_modify(|lines| lines.push(said));
                line.clear();
                if enough {
                    // Closed, it would be a broken pipe, which blocks no writer.
                    std::mem::forget(output);
                    return;
                }
            }
        });
        Self(lines)
    }

    /// The first line that has `part`, as soon as it is said.
    pub(crate) async fn line_with(&self, part: &str) -> String {
        let has = |line: &&String| line.contains(part);
        let mut lines = self.0.clone();
        let said = lines.wait_for(|lines| lines.iter().any(|line| has(&line)));
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(lines)) => lines.iter().find(has).unwrap().clone(),
            Ok(Err(_)) => panic!("ended without a line with {part:?}:\n{}", self.text()),
            Err(_) => panic!("no line with {part:?} came:\n{}", self.text()),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.0.borrow().join("\n")
    }

    async fn end(&self) {
        let mut lines = self.0.clone();
        let ended = async { while lines.changed().await.is_ok() {} };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            panic!("it does not end:\n{}", self.text());
        }
    }
}

/// A stand-in for Partner Center, in this process and by the machine's own clock.
pub(crate) struct PartnerCenter {
    pub(crate) handle: SimulatorHandle,
    pub(crate) address: SocketAddr,
}

impl PartnerCenter {
    pub(crate) async fn start(options: SimulatorOptions) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let simulator = Simulator::bind(anywhere, options).await.unwrap();
        let (handle, address) = (simulator.handle(), simulator.local_addr());
        tokio::spawn(simulator.run(Shutdown::new()));
        Self { handle, address }
    }
}

/// A folder with everything that `serve` needs.
pub(crate) struct Account {
    folder: Arc<TempDir>,
}

// === impl Account ===

impl Account {
    pub(crate) fn new(upstream: SocketAddr, client_secret: &str, refresh_token: &str) -> Self {
        let account = Self {
            folder: Arc::new(tempfile::tempdir().unwrap()),
        };
        account.write("client-secret", client_secret);
        account.write("refresh-token", refresh_token);
        let path = |name: &str| account.path(name).display().to_string();
        account.write(
            "usage-proxy.toml",
            &format!(
                r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[upstream]
base_url = "http://{upstream}"
[upstream.auth]
kind = "refresh_token"
token_url = "http://{upstream}/tenant/oauth2/v2.0/token"
client_id = "usage-proxy-test"
client_secret_file = "{}"
refresh_token_file = "{}"
"#,
                path("client-secret"),
                path("refresh-token"),
            ),
        );
        account
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("usage-proxy.toml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn refresh_token(&self) -> String {
        std::fs::read_to_string(self.path("refresh-token")).unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
        let only_for_us = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), only_for_us).unwrap();
    }

    /// `command` with this account's configuration.
    pub(crate) fn command(&self, mut binary: Command, command: &str) -> Command {
        binary.arg(command).arg("--config").arg(self.config());
        binary
    }
}

/// A service that has said where it listens.
pub(crate) struct Service {
    pub(crate) running: Running,
    pub(crate) api: String,
    pub(crate) admin: String,
}

impl Service {
    /// Waits until it listens.
    pub(crate) async fn start(command: &mut Command) -> Self {
        Self::listening(Running::start(command)).await
    }

    /// Waits until this child listens.
    pub(crate) async fn listening(running: Running) -> Self {
        let line = running.stderr.line_with("\"listening\"").await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self {
            api: format!("http://{}", line["api"].as_str().unwrap()),
            admin: format!("http://{}", line["admin"].as_str().unwrap()),
            running,
        }
    }

    pub(crate) async fn usage(&self, customer: impl std::fmt::Display) -> Reply {
        get(&format!("{}/v1/customers/{customer}/usage", self.api), &[]).await
    }

    /// One sample of a scrape, by its name and labels as they are written.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let scrape = get(&format!("{}/metrics", self.admin), &[]).await.body;
        let found = scrape
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        found
            .unwrap_or_else(|| panic!("no sample {sample} in:\n{scrape}"))
            .parse()
            .unwrap()
    }
}

/// An answer as text.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names and values, a line each.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn get(url: &str, headers: &[(&str, &str)]) -> Reply {
    try_get(url, headers).await.unwrap()
}

pub(crate) async fn try_get(url: &str, headers: &[(&str, &str)]) -> reqwest::Result<Reply> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    let mut request = client.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await?;
    let head = answer
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    Ok(Reply {
        status: answer.status().as_u16(),
        head,
        body: String::from_utf8_lossy(&answer.bytes().await?).into_owned(),
    })
}

/// Something that speaks HTTP and is not ours.
pub(crate) struct Stub;

// === impl Stub ===

impl Stub {
    /// Answers requests of each path with the bytes that `answer` makes; returns its URL.
    pub(crate) async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move { Self::serve(stream, &*answer).await });
            }
        });
        format!("http://{address}")
    }

    /// An answer of JSON, and the end of its connection.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> String {
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn serve(stream: tokio::net::TcpStream, answer: &(dyn Fn(&str) -> String + Sync)) {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        stream.read_line(&mut first).await.unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.unwrap() == 0 {
                return;
            }
        }
        let target = first.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        stream.write_all(answer(path).as_bytes()).await.unwrap();
    }
}
