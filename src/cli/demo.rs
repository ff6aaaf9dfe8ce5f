use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::Args;
use tempfile::TempDir;

use super::{
    CliError, address, print_line, serve::is_interactive, shell, signals::drain_on_signal,
};
use crate::{
    app::{App, AppDeps, AppStartError},
    config::{Config, ConfigSources, is_loopback_address},
    observability::telemetry,
    server::BindError,
    simulator::{DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, Simulator, SimulatorOptions, customer_id},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy demo
  usage-proxy demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0    on free ports

It prints what to try. In a pipe, a line of JSON on standard error has the addresses. It reads no \
configuration. Its data is made up, so --listen may be an address that others can reach, which a \
container needs.";

/// Addresses of the demo.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Address of the API listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Address of the admin listener, on this machine.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = loopback)]
    admin_listen: SocketAddr,
}

/// The stand-in, the service before it, and a few lines on how to try them.
pub(super) async fn run(args: &DemoArgs) -> Result<(), CliError> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::bind(anywhere, SimulatorOptions::default())
        .await
        .map_err(CliError::other)?;
    let secrets =
        DemoSecrets::write(simulator.handle().issue_refresh_token()).map_err(CliError::other)?;
    let config = Config::load(sources(args, simulator.local_addr(), &secrets))?;
    let log = telemetry::start_logging(&config.log).map_err(CliError::usage)?;
    let deps = AppDeps {
        dropped_log_lines: log.dropped_lines(),
        ..AppDeps::default()
    };
    let app = App::build(&config, deps)
        .await
        .map_err(listen_error_with_flag)?;
    let shutdown = app.shutdown();
    drain_on_signal(shutdown.clone())?;
    shutdown.spawn(simulator.run(shutdown.clone()));
    let (api, admin) = (app.api_address(), app.admin_address());
    print_line(startup_message(api, admin))?;
    if !is_interactive() {
        tracing::info!(%api, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    app.run().await;
    tracing::info!("ended");
    Ok(())
}

/// Names the flag where an address cannot be listened on: the demo has no keys of configuration.
fn listen_error_with_flag(error: AppStartError) -> CliError {
    match error {
        AppStartError::Bind(BindError {
            key,
            address,
            reason,
        }) => {
            let flag = match key {
                "admin.listen" => "--admin-listen",
                _ => "--listen",
            };
            CliError::other(format!("{flag} {address} cannot be listened on: {reason}"))
        }
        other => other.into(),
    }
}

/// The secrets of the stand-in's account, in files like any others, gone when the demo ends.
struct DemoSecrets {
    _folder: TempDir,
    client_secret: PathBuf,
    refresh_token: PathBuf,
}

// === impl Secrets ===

impl DemoSecrets {
    fn write(refresh_token: String) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("usage-proxy-demo-")
            .tempdir()?;
        let file = |name: &str, secret: &str| -> io::Result<PathBuf> {
            let path = folder.path().join(name);
            fs::write(&path, secret)?;
            restrict_to_owner(&path)?;
            Ok(path)
        };
        Ok(Self {
            client_secret: file("client-secret", "the stand-in takes any")?,
            refresh_token: file("refresh-token", &refresh_token)?,
            _folder: folder,
        })
    }
}

fn restrict_to_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// The demo is configured as any deployment is; nothing of the environment is looked at, so that
/// it runs the same everywhere.
fn sources(args: &DemoArgs, upstream: SocketAddr, secrets: &DemoSecrets) -> ConfigSources {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("--listen", "server.listen", args.listen.to_string()),
        (
            "--admin-listen",
            "admin.listen",
            args.admin_listen.to_string(),
        ),
        // Nothing real is behind it, so anyone may see it.
        ("demo", "callers.anonymous", "true".to_owned()),
        ("demo", "upstream.base_url", format!("http://{upstream}")),
        ("demo", "upstream.auth.kind", "refresh_token".to_owned()),
        (
            "demo",
            "upstream.auth.token_url",
            format!("http://{upstream}/demo/oauth2/v2.0/token"),
        ),
        (
            "demo",
            "upstream.auth.client_id",
            "usage-proxy-demo".to_owned(),
        ),
        (
            "demo",
            "upstream.auth.client_secret_file",
            path(&secrets.client_secret),
        ),
        (
            "demo",
            "upstream.auth.refresh_token_file",
            path(&secrets.refresh_token),
        ),
    ]
    .into_iter()
    .fold(ConfigSources::default(), |sources, (flag, key, value)| {
        sources.with_flag(flag, key, value)
    })
}

/// An address that nobody else reaches, from a flag.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    if is_loopback_address(address) {
        Ok(address)
    } else {
        Err(
            "others would reach it without a key; expected an address such as 127.0.0.1:9090"
                .into(),
        )
    }
}

fn startup_message(api: SocketAddr, admin: SocketAddr) -> String {
    // The only one whose name has "zubr" in it.
    let customer = customer_id(SimulatorOptions::default().seed, 3);
    format!(
        "usage-proxy {version}, in front of a simulated Partner Center. Look at its page:

  http://{api}/

Or ask for a customer:

  {program} get zubr --url http://{api}
  curl -s http://{api}/v1/customers/{customer}/usage
  curl -s http://{admin}/cache

Compare the example in Microsoft's documentation:

  curl -s http://{api}/v1/customers/{DOCUMENTED_CUSTOMER}/usage
  curl -si -H 'Accept: text/csv' 'http://{api}/v1/customers/{DOCUMENTED_CUSTOMER}/usage?processedDate={DOCUMENTED_DATE}'

API http://{api}, admin http://{admin} (/metrics, /healthz, /readyz, /cache). Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
        program = shell::program_name(),
    )
}
