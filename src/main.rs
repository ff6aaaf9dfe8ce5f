//! The `usage-proxy` command.

use std::{process::ExitCode, thread};

use clap::Parser;
use tokio::runtime::Builder;
use usage_proxy::{
    cli::{self, Cli},
    socket_activation::InheritedSockets,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    disable_huge_pages();
    let cli = Cli::parse();
    // It changes the environment, so it comes before any thread.
    let inherited = InheritedSockets::from_environment();
    // On one processor, handing work between threads only costs.
    let mut runtime = match thread::available_parallelism() {
        Ok(processors) if processors.get() > 1 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(cli, inherited)),
        Err(error) => {
            eprintln!("usage-proxy: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the kernel use only as much memory as is used. With huge pages, which the allocator asks for, a
/// few bytes take 2 MiB, and a process takes twice its memory. Hits are as fast without them.
fn disable_huge_pages() {
    // Where a sandbox forbids it, all that is lost is memory.
    #[cfg(target_os = "linux")]
    let _forbidden = rustix::thread::disable_transparent_huge_pages(true).is_err();
}
