//! The built binary as a child, what it says line by line, and the files that it is given.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::watch;
use usage_proxy::{
    shutdown::Shutdown,
    simulator::{Faults, SimulatedApi, Simulator, SimulatorHandle, SimulatorOptions},
};

/// Longer than anything takes. A test that waits longer fails, and says what it waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The customer of Microsoft's own example.
pub(crate) const DOCUMENTED: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";

/// Asserts that a text has all of these parts.
#[track_caller]
pub(crate) fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// An address where nothing listens.
pub(crate) fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// The output of a command that has ended, and its exit code.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, on a thread of its own: a simulator may need this one.
pub(crate) async fn run(mut command: Command) -> Finished {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    Finished::of(output.await.unwrap())
}

impl Finished {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that the command succeeded, and printed all of these parts.
    #[track_caller]
    pub(crate) fn assert_printed(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_has(&self.stdout, parts);
    }

    /// Asserts that the command failed with this code and said all of these parts, and printed
    /// nothing.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (Some(code), ""), "{self:?}");
        assert_has(&self.stderr, parts);
    }

    /// Asserts that the command failed with this code and one line that has all of these parts.
    #[track_caller]
    pub(crate) fn assert_failed_in_one_line(&self, code: i32, parts: &[&str]) {
        self.assert_failed(code, parts);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
    }
}

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

/// The lines that a child has written to one of its outputs.
#[derive(Clone)]
pub(crate) struct Lines(watch::Receiver<Vec<String>>);

// === impl Running ===

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, Stdio::null())
    }

    pub(crate) fn start_with_input(command: &mut Command, input: Stdio) -> Self {
        Self::spawn(command, input, |_| false)
    }

    /// Starts a child whose standard error is read up to a line with `part` and no further.
    pub(crate) fn start_unread_after(command: &mut Command, part: &'static str) -> Self {
        Self::spawn(command, Stdio::null(), move |line| line.contains(part))
    }

    fn spawn(
        command: &mut Command,
        input: Stdio,
        is_last: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: Lines::read(child.stdout.take().unwrap(), |_| false),
            stderr: Lines::read(child.stderr.take().unwrap(), is_last),
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
    /// Reads no further than the first line that is the last, and leaves the output open.
    fn read(
        output: impl Read + Send + 'static,
        is_last: impl Fn(&str) -> bool + Send + 'static,
    ) -> Self {
        let (sender, lines) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let was_last = is_last(&text);
                sender.send_modify(|lines| lines.push(text));
                line.clear();
                if was_last {
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

/// A simulated Partner Center, in this process and by the machine's own clock.
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

    /// Starts one that misbehaves from the beginning.
    pub(crate) async fn with(faults: Faults) -> Self {
        Self::start(SimulatorOptions {
            faults,
            ..SimulatorOptions::default()
        })
        .await
    }

    /// An account with a refresh token of its own.
    pub(crate) fn account(&self) -> Account {
        Account::new(self.address, "secret", &self.handle.issue_refresh_token())
    }

    /// Waits until so many calls of this kind have come, answered or not.
    pub(crate) async fn wait_for_calls(&self, api: SimulatedApi, calls: usize) {
        let come = self.handle.wait_for_requests(api, calls);
        let come = tokio::time::timeout(PATIENCE, come).await;
        assert!(come.is_ok(), "waited for {calls} calls of {api:?}");
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

    /// Starts the service with this account's configuration.
    pub(crate) async fn serve(&self) -> Service {
        Service::start(&mut self.command(usage_proxy(), "serve")).await
    }

    /// Replaces a part of the configuration file.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from} in {config}");
        self.write("usage-proxy.toml", &config.replace(from, to));
    }

    /// Writes a certificate of its own and its key, in PEM.
    pub(crate) fn write_certificate(&self, certificate: &str, key: &str) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.write(certificate, &pair.cert.pem());
        self.write(key, &pair.signing_key.serialize_pem());
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

    /// `GET` of the admin listener.
    pub(crate) async fn admin_get(&self, path: &str) -> Reply {
        get(&format!("{}{path}", self.admin), &[]).await
    }

    /// Ends the service in order.
    pub(crate) async fn end(mut self) {
        self.running.signal("TERM");
        let ended = self.running.ended().await;
        assert_eq!(ended.code(), Some(0), "{}", self.running.transcript());
    }

    /// One sample of a scrape, by its name and labels as they are written.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let scrape = self.admin_get("/metrics").await.body;
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
