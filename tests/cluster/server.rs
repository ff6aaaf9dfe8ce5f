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
    disk: Disk,
    folder: TempDir,
}

/// The disk of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disk {
    /// That of the machine.
    #[default]
    Large,
    /// One of its own, in memory, which [`DatabaseServer::fill_disk`] fills. The log of transactions is not
    /// on it. It needs root, or a system where every user may make a namespace.
    Small,
}

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Mounts a small disk, which only the program sees that follows. It ends with the program.
const WITH_SMALL_DISK: &str = r#"mount -t tmpfs -o "size=24m,mode=700,$(stat -c uid=%u,gid=%g "$0")" tmpfs "$0" && exec "$@""#;

// === impl DatabaseServer ===

impl DatabaseServer {
    pub(crate) fn start(disk: Disk) -> Self {
        let folder = tempfile::tempdir().unwrap();
        give_to_server(folder.path());
        fs::create_dir(folder.path().join("disk")).unwrap();
        give_to_server(&folder.path().join("disk"));
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
            disk,
            folder,
        };
        server.resume_data();
        if disk == Disk::Small {
            server.move_to_small_disk();
        }
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

    /// Leaves no space for another row that needs a page of its own.
    pub(crate) fn fill_disk(&self) {
        // A page takes few rows from now on, so that soon most rows need another one.
        self.psql(
            "DO $$ DECLARE filled text; BEGIN
                FOR filled IN SELECT tablename FROM pg_tables WHERE schemaname = 'usage_proxy' LOOP
                    EXECUTE format('ALTER TABLE usage_proxy.%I SET (fillfactor = 10)', filled);
                END LOOP;
            END $$",
        );
        self.psql(
            "CREATE TABLE filler (page text);
            ALTER TABLE filler ALTER COLUMN page SET STORAGE PLAIN",
        );
        self.psql(
            "DO $$ BEGIN
                LOOP
                    BEGIN
                        INSERT INTO filler VALUES (repeat('x', 8000));
                    EXCEPTION WHEN disk_full THEN
                        EXIT;
                    END;
                END LOOP;
            END $$",
        );
    }

    /// Frees all that [`DatabaseServer::fill_disk`] took.
    pub(crate) fn free_disk(&self) {
        self.psql("DROP TABLE filler");
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

    fn move_to_small_disk(&self) {
        let disk = self.folder.path().join("disk");
        for statement in [
            &*format!("CREATE TABLESPACE small LOCATION '{}'", disk.display()),
            "ALTER DATABASE postgres SET TABLESPACE small",
        ] {
            // A database moves while nobody uses it.
            let moved = self.client_of("template1", statement).output().unwrap();
            let said = String::from_utf8_lossy(&moved.stderr);
            assert!(moved.status.success(), "{statement}: {said}");
        }
    }

    fn client(&self, statements: &str) -> Command {
        self.client_of("postgres", statements)
    }

    fn client_of(&self, database: &str, statements: &str) -> Command {
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", "postgres", "-d", database])
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
        let mut command = match self.disk {
            Disk::Large => as_server("postgres"),
            Disk::Small => with_small_disk(as_server("postgres"), &self.folder.path().join("disk")),
        };
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

/// The command, in a namespace where a small disk is mounted at `place`.
fn with_small_disk(command: Command, place: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !geteuid().is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["sh", "-c", WITH_SMALL_DISK]).arg(place);
    unshare.arg(command.get_program()).args(command.get_args());
    unshare.current_dir("/");
    unshare
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
