//! An image from a registry, where one can be reached.

use anyhow::Result;

use super::daemon::Daemon;
use super::heading;

/// What everybody has heard of.
const NAME: &str = "docker.io/library/alpine:latest";

/// Pulls the image and runs it, if the registry answers within five seconds; else says that it did not.
pub fn show(ours: &Daemon) -> Result<()> {
    heading(6, &format!("A pull from a registry: {NAME}"));
    let told = ours.try_ctr(&["--timeout", "5s", "registry", "explain", NAME])?.stdout;
    let told = String::from_utf8_lossy(&told);
    if !told.lines().any(|line| line.trim_start().starts_with("answer: 200")) {
        println!("    the registry did not answer within 5 s: not tried");
        return Ok(());
    }
    let begun = std::time::Instant::now();
    if let Err(error) = ours.ctr(&["--timeout", "60s", "images", "pull", NAME]) {
        // It may know us too well already (429): that is no fault of this machine.
        let reason = format!("{error:#}");
        println!("    not pulled: {}", reason.lines().last().unwrap_or_default());
        return Ok(());
    }
    println!("    pulled in {:.1} s", begun.elapsed().as_secs_f64());
    let script = ". /etc/os-release; echo $PRETTY_NAME";
    let output = ours.ctr(&["run", "--rm", NAME, "alpine", "sh", "-c", script])?;
    println!("    it says: {}", output.trim());
    Ok(())
}
