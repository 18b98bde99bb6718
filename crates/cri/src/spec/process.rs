//! What runs in a container: arguments, environment, working directory, terminal; and processes that join it later.

use api::cri::{ContainerConfig, KeyValue};
use types::oci::ImageConfig;
use types::oci::image::ConfigSection;
use types::{Error, Result};

use super::document::Document;
use super::{checks, machine};

/// Sets them from the request, else from the image.
pub(super) fn apply(
    document: &mut Document,
    config: &ContainerConfig,
    image: &ImageConfig,
    hostname: &str,
) -> Result<()> {
    let image = &image.config;
    document.process.args = args(config, image)?;
    if !config.working_dir.is_empty() {
        document.process.cwd.clone_from(&config.working_dir);
    } else if !image.working_dir.is_empty() {
        document.process.cwd.clone_from(&image.working_dir);
    }
    checks::text("working_dir", &document.process.cwd)?;
    if config.tty {
        document.process.terminal = true;
        document.process.env.push("TERM=xterm".to_owned());
    }
    let hostname = if hostname.is_empty() { machine::hostname() } else { hostname.to_owned() };
    document.env(&[format!("HOSTNAME={hostname}")]);
    // One after the other: each name is there once.
    document.env(&image.env);
    document.env(&env(config)?);
    document.process.env.iter().try_for_each(|variable| checks::text("envs", variable))
}

/// Docker's rule: a command of one's own drops the image's arguments, arguments of one's own only those.
fn args(config: &ContainerConfig, image: &ConfigSection) -> Result<Vec<String>> {
    let (mut command, mut args) = (config.command.clone(), config.args.clone());
    if command.is_empty() {
        if args.is_empty() {
            args.clone_from(&image.cmd);
        }
        if image.entrypoint != [""] {
            command.clone_from(&image.entrypoint);
        }
    }
    command.append(&mut args);
    if command.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    command.iter().try_for_each(|arg| checks::text("args", arg))?;
    Ok(command)
}

/// The request's variables.
fn env(config: &ContainerConfig) -> Result<Vec<String>> {
    let variable = |variable: &KeyValue| match variable.key.as_str() {
        "" => Err(Error::invalid("envs: a variable has no name")),
        key => Ok(format!("{key}={}", String::from_utf8_lossy(&variable.value))),
    };
    config.envs.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn arguments_are_merged_as_docker_merges_them() {
        for (command, args, entrypoint, cmd, expected) in [
            (&["a"][..], &["b"][..], &["c"][..], &["d"][..], Some(&["a", "b"][..])),
            (&["a"], &[], &["c"], &["d"], Some(&["a"])),
            (&[], &["b"], &["c"], &["d"], Some(&["c", "b"])),
            (&[], &[], &["c"], &["d"], Some(&["c", "d"])),
            (&[], &[], &[], &["d"], Some(&["d"])),
            (&[], &["b"], &[""], &[], Some(&["b"])),
            (&[], &[], &[], &[], None),
            (&["a\0"], &[], &[], &[], None),
        ] {
            let config =
                ContainerConfig { command: texts(command), args: texts(args), ..ContainerConfig::default() };
            let image =
                ConfigSection { entrypoint: texts(entrypoint), cmd: texts(cmd), ..ConfigSection::default() };
            let merged = super::args(&config, &image).ok();
            assert_eq!(merged, expected.map(texts), "{command:?} {args:?} {entrypoint:?} {cmd:?}");
        }
    }

    #[test]
    fn variables_of_the_request_win_and_need_not_be_text() {
        let variable = |key: &str, value: &[u8]| KeyValue { key: key.to_owned(), value: value.to_vec() };
        let config = ContainerConfig {
            command: texts(&["x"]),
            envs: vec![variable("A", b"2"), variable("B", b"\xff")],
            tty: true,
            ..ContainerConfig::default()
        };
        let image = ImageConfig {
            config: ConfigSection { env: texts(&["A=1", "PATH=/p"]), ..ConfigSection::default() },
            ..ImageConfig::default()
        };
        let mut document = Document::default();
        document.env(&texts(&["PATH=/usr"]));
        apply(&mut document, &config, &image, "h").unwrap();
        assert_eq!(document.process.env, ["PATH=/p", "TERM=xterm", "HOSTNAME=h", "A=2", "B=\u{fffd}"]);
        assert!(document.process.terminal);
        for key in ["", "A\0"] {
            let bad = ContainerConfig { envs: vec![variable(key, b"x")], ..config.clone() };
            assert!(apply(&mut Document::default(), &bad, &image, "h").is_err(), "{key:?}");
        }
    }
}
