//! ctr, the command line client.
//!
//! `argv` and `cli` turn words into a command, `client` reaches the daemon, `commands/<noun>` does the work, `io`
//! carries a process's streams, and `go` prints as upstream's ctr does. Errors go to stderr behind `ctr: ` with exit
//! code 1; `run`, `tasks start`, `attach` and `exec` exit with the process's code.

#![forbid(unsafe_code)]

mod argv;
mod checkpoint;
mod cli;
mod client;
mod commands;
mod complete;
#[cfg(any(test, feature = "docs"))]
mod docs;
mod fetch;
mod flags;
mod go;
mod io;
mod log;
mod network;
mod process;
mod progress;
mod registry;
mod transfer;
mod unpack;
mod usage;

use types::Error;

fn main() {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    #[cfg(feature = "docs")]
    if let [word, directory] = &args[..]
        && word == "docs"
    {
        return docs::write(directory.as_ref()).unwrap_or_else(|error| {
            eprintln!("ctr: {error}");
            std::process::exit(1)
        });
    }
    let code = match cli::parse(&args) {
        Ok(cli) => execute(cli),
        Err(code) => code,
    };
    // Not by returning: a thread that still reads the terminal must not keep the program alive.
    std::process::exit(code.into());
}

fn execute(cli: cli::Cli) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ctr: start: {error}");
            return 1;
        }
    };
    let timeout = cli.globals.timeout;
    let result = runtime.block_on(async move {
        let command = commands::dispatch(cli);
        if timeout.is_zero() {
            return command.await;
        }
        let late = || Error::deadline("context deadline exceeded");
        tokio::time::timeout(timeout, command).await.unwrap_or_else(|_| Err(late()))
    });
    let code = result.unwrap_or_else(|error| {
        if commands::is_unread(&error) {
            sys::process::end_by_broken_pipe();
        }
        eprintln!("ctr: {error}");
        1
    });
    // Tasks that wait for nothing but the daemon end here.
    runtime.shutdown_background();
    code
}
