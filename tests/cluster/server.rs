//! A PostgreSQL server that one test has for itself, so that it can stop and kill it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::process::PATIENCE;

/// A server with an empty database, which ends with the test.
pub(crate) struct DatabaseServer {
    port: u16,
    postmaster: Mutex<Option<Child>>,
    folder: TempDir,
}

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

// === impl DatabaseServer ===

impl DatabaseServer {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        give_to_server(folder.path());
        let mut initdb = as_server("initdb");
        initdb
            .arg("-D")
            .arg(folder.path().join("data"))
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync"]);
        let made = initdb.output().unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb: {said}");
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = Self {
            port,
            postmaster: Mutex::default(),
            folder,
        };
        server.resume_data();
        server
    }

    /// Starts the server on the data that there is, after [`DatabaseServer::kill`].
    pub(crate) fn resume_data(&self) {
        let begun = Instant::now();
        let mut postmaster = self.spawn();
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "{}", self.log());
            if postmaster.try_wait().unwrap().is_some() {
                // Children of the one before may still be ending.
                std::thread::sleep(PAUSE);
                postmaster = self.spawn();
            }
            std::thread::sleep(PAUSE);
        }
        *self.lock() = Some(postmaster);
    }

    /// Stops all processes of the server where they are.
    pub(crate) fn stop(&self) {
        let postmaster = self.pid();
        // First, so that it has no more children.
        signal(postmaster, Signal::STOP);
        for child in children(postmaster) {
            signal(child, Signal::STOP);
        }
    }

    /// Lets the processes go on after [`DatabaseServer::stop`].
    pub(crate) fn go_on(&self) {
        go_on(self.pid());
    }

    /// Kills all processes of the server.
    pub(crate) fn kill(&self) {
        let mut postmaster = self.lock().take().unwrap();
        let pid = pid_of(&postmaster);
        signal(pid, Signal::STOP);
        for child in children(pid) {
            signal(child, Signal::KILL);
        }
        postmaster.kill().unwrap();
        postmaster.wait().unwrap();
    }

    /// Returns the URL, at the server's own port or that of a relay.
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements, and returns what they print: a row a line, a `|` between columns.
    pub(crate) fn psql(&self, statements: &str) -> String {
        let output = self.client(statements).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Ends all connections of the replicas.
    pub(crate) fn terminate_connections(&self) {
        self.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                AND backend_type = 'client backend'",
        );
    }

    fn client(&self, statements: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", "postgres", "-d", "postgres"])
            .args(["-Atqc", statements, "-v", "ON_ERROR_STOP=1"])
            .env("PGCONNECT_TIMEOUT", "10");
        psql
    }

    fn answers(&self) -> bool {
        self.client("SELECT 1").output().unwrap().status.success()
    }

    fn spawn(&self) -> Child {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = as_server("postgres");
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=100", "-c", "shared_buffers=16MB"])
            // Only a power failure would lose anything.
            .args(["-c", "fsync=off"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.spawn().unwrap()
    }

    fn pid(&self) -> Pid {
        pid_of(self.lock().as_ref().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap()
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        let postmaster = self.postmaster.get_mut();
        let Some(mut postmaster) = postmaster.ok().and_then(Option::take) else {
            return;
        };
        let pid = pid_of(&postmaster);
        go_on(pid);
        // It removes its shared memory.
        signal(pid, Signal::QUIT);
        let begun = Instant::now();
        while matches!(postmaster.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE / 4 {
            std::thread::sleep(PAUSE);
        }
        drop(postmaster.kill());
        drop(postmaster.wait());
    }
}

/// A program of the server, as a user that it accepts: it refuses to run as root. It ends when the thread
/// does that started it.
fn as_server(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]);
    command.arg(newest_version().map_or_else(|| program.into(), |bin| bin.join(program)));
    command.current_dir("/");
    command
}

/// The folder of the newest version of Debian's packages; `None`: whatever the PATH has.
fn newest_version() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions.filter(|path| path.join("bin/postgres").exists());
    Some(newest.max_by_key(number)?.join("bin"))
}

fn give_to_server(folder: &Path) {
    if geteuid().is_root() {
        let number = |option| {
            let id = Command::new("id").args([option, "postgres"]).output();
            let id = String::from_utf8(id.unwrap().stdout).unwrap();
            id.trim().parse().expect("a user called postgres")
        };
        chown(folder, Some(number("-u")), Some(number("-g"))).unwrap();
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn go_on(postmaster: Pid) {
    for child in children(postmaster) {
        signal(child, Signal::CONT);
    }
    signal(postmaster, Signal::CONT);
}

/// A process that has ended by itself gets none.
pub(crate) fn signal(process: Pid, signal: Signal) {
    let _ended = kill_process(process, signal).is_err();
}

fn children(parent: Pid) -> Vec<Pid> {
    let line = format!("PPid:\t{}", parent.as_raw_nonzero());
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        Pid::from_raw(pid).filter(|_| status.lines().any(|found| found == line))
    });
    processes.collect()
}
