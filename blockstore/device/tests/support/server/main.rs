//! The processes of the tests.
//!
//! `mooring-device-server holder SOCKET`: a holder.
//! `mooring-device-server serve DIRECTORY SOCKET NAME FILE auto|resend|forward`: a daemon that serves
//! one device from a file; it resumes the device if the holder has it, else attaches it. It prints
//! the device's node, then takes commands from its input: `grow`, `detach`, `stats`.
#![allow(clippy::disallowed_methods, reason = "a program for tests of real time")]

mod file_io;
mod log;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use mooring_device::{Device, DeviceError, Handover, LoopDevice, LoopHost, LoopOptions, holder};

fn main() -> ExitCode {
    log::install();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result =
        match arguments.as_slice() {
            ["holder", socket] => holder::run(Path::new(socket)).map_err(Into::into),
            ["serve", directory, socket, name, file, handover] => {
                serve(directory, socket, name, file, handover)
            }
            _ => Err("usage: holder SOCKET | serve DIRECTORY SOCKET NAME FILE auto|resend|forward"
                .into()),
        };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(
    directory: &str,
    socket: &str,
    name: &str,
    file: &str,
    handover: &str,
) -> Result<(), Box<dyn Error>> {
    let handover = match handover {
        "auto" => Handover::Auto,
        "resend" => Handover::Resend,
        "forward" => Handover::Forward,
        other => return Err(format!("no hand-over is called {other}").into()),
    };
    let mut command = Command::new(std::env::current_exe()?);
    let holder = holder::ensure_running(Path::new(socket), command.args(["holder", socket]))?;
    let host = LoopHost::new(Path::new(directory), Some(Arc::new(holder)))?;
    let io = Arc::new(file_io::FileIo::open(OpenOptions::new().read(true).write(true).open(file)?));
    let device = loop {
        match host.resume(name, io.clone()) {
            Err(DeviceError::NotHeld { .. }) => {
                let options =
                    LoopOptions { handover, note: b"note".to_vec(), ..LoopOptions::default() };
                break host.attach(name, io, &options)?;
            }
            // The predecessor is still being torn down.
            Err(DeviceError::Owned { .. }) => std::thread::sleep(Duration::from_millis(1)),
            other => break other?,
        }
    };
    println!("{}", device.path().display());
    for line in std::io::stdin().lock().lines() {
        let answer = obey(&device, &line?);
        println!("{answer}");
    }
    // Whoever closes the input only stops talking.
    loop {
        std::thread::park();
    }
}

fn obey(device: &LoopDevice, command: &str) -> String {
    let result = match command {
        "grow" => device.grow().map(|bytes| bytes.to_string()),
        "detach" => device.detach().map(|()| "detached".to_owned()),
        "stats" => Ok(format!("{:?}", device.stats())),
        other => Ok(format!("no command is called {other}")),
    };
    result.unwrap_or_else(|error| format!("error: {error}"))
}
