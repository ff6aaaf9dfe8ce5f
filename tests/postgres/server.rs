//! A PostgreSQL server and PgBouncer for all tests of a process, started when the first test asks.

#![allow(dead_code, reason = "no test binary uses all of it")]

use std::{
    fmt::Display,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A database of its own, for one test. The server ends with the process.
pub(crate) struct TestDatabase {
    name: String,
}

struct TestServer {
    port: String,
    pooler_port: String,
    folder: PathBuf,
    /// The servers end when its input is closed.
    _running: Child,
}

static SERVER: LazyLock<TestServer> = LazyLock::new(TestServer::start);

static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl TestDatabase {
    pub(crate) fn create() -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        psql("postgres", &format!("CREATE DATABASE {name}"));
        Self { name }
    }

    /// Runs statements outside of any test's database.
    pub(crate) fn administer(statements: &str) {
        psql("postgres", statements);
    }

    /// Returns the URL of the database, for a user with every right and without a password.
    pub(crate) fn url(&self) -> String {
        self.url_at(&SERVER.port)
    }

    /// Returns the URL of the database behind PgBouncer.
    pub(crate) fn pooler_url(&self) -> String {
        self.url_at(&SERVER.pooler_port)
    }

    /// Returns the URL of the database at another port, such as that of a relay.
    pub(crate) fn url_at(&self, port: impl Display) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{}", self.name)
    }

    /// Returns the URL for a user who needs a password and TLS.
    pub(crate) fn tls_url(&self, user: &str) -> String {
        let (port, name) = (&SERVER.port, &self.name);
        format!("postgres://{user}@localhost:{port}/{name}?sslmode=verify-full")
    }

    /// Returns the URL behind PgBouncer, whose certificate is that of a CA itself.
    pub(crate) fn self_signed_url(&self) -> String {
        let (port, name) = (&SERVER.pooler_port, &self.name);
        format!("postgres://postgres@localhost:{port}/{name}?sslmode=verify-full")
    }

    /// Returns the number of connections that receive the notifications of all replicas.
    pub(crate) fn listeners(&self) -> usize {
        let listening = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND query = 'LISTEN usage_proxy'";
        self.psql(listening).parse().unwrap()
    }

    /// Ends the connections that receive notifications.
    pub(crate) fn end_listeners(&self) {
        self.psql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE datname = current_database() AND query = 'LISTEN usage_proxy'",
        );
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements, and returns what they print: a row a line, a `|` between columns.
    pub(crate) fn psql(&self, statements: &str) -> String {
        psql(&self.name, statements)
    }
}

/// Returns the address of the server.
pub(crate) fn address() -> String {
    format!("127.0.0.1:{}", SERVER.port)
}

/// Returns a certificate of the server's folder: `ca` or `self`.
pub(crate) fn certificate(name: &str) -> PathBuf {
    SERVER.folder.join(name).with_extension("pem")
}

impl TestServer {
    fn start() -> Self {
        let script = include_str!("server.sh");
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = match is_root {
            // PostgreSQL and PgBouncer refuse to run as root.
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
                command.args(["bash", "-c", script]);
                command
            }
            false => {
                let mut command = Command::new("bash");
                command.args(["-c", script]);
                command
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv and bash");
        let mut ports = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ports)
            .unwrap();
        let words: Vec<_> = ports.split_whitespace().collect();
        let [port, pooler_port, folder] = words[..] else {
            panic!("tests need PostgreSQL and PgBouncer, which tests/run installs");
        };
        Self {
            port: port.to_owned(),
            pooler_port: pooler_port.to_owned(),
            folder: folder.into(),
            _running: child,
        }
    }
}

fn psql(database: &str, statements: &str) -> String {
    let output = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &SERVER.port, "-U", "postgres"])
        .args(["-d", database, "-Atqc", statements])
        .args(["-v", "ON_ERROR_STOP=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{statements}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
