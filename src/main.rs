//! The `flowmesh` command.

use std::backtrace::Backtrace;
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Whatever the build profile says about panics: memory that may differ from the log must not live on.
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(
            std::io::stderr(),
            "flowmesh {} stops: {info}\n{}",
            env!("CARGO_PKG_VERSION"),
            Backtrace::force_capture()
        );
        std::process::abort();
    }));
    flowmesh::cli::run(std::env::args_os())
}
