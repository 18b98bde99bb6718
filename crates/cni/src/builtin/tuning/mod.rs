//! Settings of a container's interface, and of its network namespace.
//!
//! What the interface was like is written down for DEL, as it may be one that outlives the container: the Go plugin's file.
//!
//! ```text
//!  <dataDir>/<container>_<interface>.json     {"mac": ..., "promisc": ..., "mtu": ..., "allmulti": ..., "txQLen": ...}
//! ```

mod settings;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use types::{Error, Result, ResultExt};

use super::asked::Asked;
use super::kernel::links::{ALLMULTI, Change, Link, Links, PROMISC};
use crate::result::{Current, nullable};

/// Where is written down what interfaces were like.
const DATA: &str = "/run/cni/tuning";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    #[serde(deserialize_with = "nullable")]
    data_dir: String,
    #[serde(flatten)]
    own: Values,
    #[serde(deserialize_with = "nullable")]
    runtime_config: WithMac,
    #[serde(deserialize_with = "nullable")]
    args: Args,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WithMac {
    #[serde(deserialize_with = "nullable")]
    mac: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    #[serde(deserialize_with = "nullable")]
    cni: Values,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Values {
    #[serde(deserialize_with = "settings::unique")]
    sysctl: BTreeMap<String, String>,
    #[serde(flatten)]
    link: LinkValues,
}

/// What an interface is to be like, or was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LinkValues {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "nullable")]
    mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    queue: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a configuration means.
struct Config {
    dir: PathBuf,
    sysctl: BTreeMap<String, String>,
    link: LinkValues,
}

impl Config {
    /// The word of `args` is before that of the runtime, as the Go plugin has it.
    fn of(asked: &Asked) -> Result<Self> {
        let Written { data_dir, own, runtime_config, args } = asked.parse()?;
        let mut sysctl = own.sysctl;
        sysctl.extend(args.cni.sysctl);
        let (given, own) = (args.cni.link, own.link);
        let macs = [given.mac, runtime_config.mac, asked.argument("MAC").unwrap_or_default().into(), own.mac];
        let link = LinkValues {
            mac: macs.into_iter().find(|mac| !mac.is_empty()).unwrap_or_default(),
            // Only what is asked for is done: not to take everything is what interfaces do anyway.
            promisc: given.promisc.or(own.promisc).filter(|on| *on),
            mtu: if given.mtu == 0 { own.mtu } else { given.mtu },
            allmulti: given.allmulti.or(own.allmulti),
            queue: given.queue.or(own.queue),
        };
        if !link.mac.is_empty() {
            link.mac.parse::<super::kernel::mac::Mac>()?;
        }
        let dir = if data_dir.is_empty() { DATA.into() } else { data_dir.into() };
        Ok(Self { dir, sysctl, link })
    }

    fn backup(&self, asked: &Asked) -> Result<PathBuf> {
        let (container, interface) = (&asked.at.container, &asked.at.interface);
        crate::names::container(container)?;
        crate::names::interface(interface)?;
        Ok(self.dir.join(format!("{container}_{interface}.json")))
    }
}

impl LinkValues {
    /// What `link` is like, of what these values would change.
    fn before(&self, link: &Link) -> Self {
        Self {
            mac: if self.mac.is_empty() { String::new() } else { link.mac.clone() },
            promisc: self.promisc.map(|_| link.promiscuity > 0),
            mtu: if self.mtu == 0 { 0 } else { link.mtu },
            allmulti: self.allmulti.map(|_| link.is(ALLMULTI)),
            queue: self.queue.map(|_| link.queue),
        }
    }

    fn apply(&self, links: &Links, link: &Link) -> Result<()> {
        let set = |flag: u32, on: Option<bool>| on.map_or((0, 0), |on| (flag, if on { flag } else { 0 }));
        let ((all_mask, all), (promisc_mask, promisc)) =
            (set(ALLMULTI, self.allmulti), set(PROMISC, self.promisc));
        let change = Change {
            flags: (all_mask | promisc_mask, all | promisc),
            mac: Some(self.mac.as_str()).filter(|mac| !mac.is_empty()).map(str::parse).transpose()?,
            mtu: Some(self.mtu).filter(|mtu| *mtu != 0),
            queue: self.queue,
            ..Change::default()
        };
        links.change(link.index, &change)
    }

    fn check(&self, link: &Link) -> Result<()> {
        let found = self.before(link);
        let same = self.mac.eq_ignore_ascii_case(&found.mac)
            && Self { mac: found.mac.clone(), ..self.clone() } == found;
        if same {
            return Ok(());
        }
        Err(Error::precondition(format!("link {} is {found:?}, configured {self:?}", link.name)))
    }
}

pub(super) fn add(asked: &Asked) -> Result<Current> {
    let (config, mut result, netns) = (Config::of(asked)?, asked.chained()?, asked.netns()?);
    let name = asked.at.interface.as_str();
    let settings = settings::allowed(&config.sysctl, name)?;
    let backup = config.backup(asked)?;
    asked.inside(&netns, || {
        for (path, value) in &settings {
            fs::write(path, value).context(|| format!("set {} to {value:?}", path.display()))?;
        }
        if config.link == LinkValues::default() {
            return Ok(());
        }
        let links = Links::open()?;
        let link = links.named(name)?;
        write_down(&backup, &config.link.before(&link))?;
        config.link.apply(&links, &link)
    })?;
    if !config.link.mac.is_empty() {
        result
            .interfaces
            .iter_mut()
            .filter(|of| of.name == name)
            .for_each(|of| of.mac.clone_from(&config.link.mac));
    }
    Ok(result)
}

fn write_down(path: &Path, values: &LinkValues) -> Result<()> {
    let bytes = serde_json::to_vec(values).map_err(|error| Error::internal(error.to_string()))?;
    let dir = path.parent().unwrap_or(path);
    let written = DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags);
        options.open(path)?.write_all(&bytes)
    });
    written.context(|| format!("write {}", path.display()))
}

/// What cannot be restored is no failure: the container goes.
pub(super) fn del(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    let path = config.backup(asked)?;
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.context(|| format!("read {}", path.display()))?,
    };
    if let Some(netns) = asked.netns_if_there()? {
        let restored = asked.inside(&netns, || {
            let links = Links::open()?;
            let Some(link) = links.by_name(&asked.at.interface)? else { return Ok(()) };
            let before: LinkValues = serde_json::from_slice(&text)
                .map_err(|error| Error::data_loss(format!("{}: {error}", path.display())))?;
            before.apply(&links, &link)
        });
        if let Err(error) = restored {
            warn!(container = asked.at.container, %error, "an interface is not as it was before tuning");
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn check(asked: &Asked) -> Result<()> {
    let (config, _, netns) = (Config::of(asked)?, asked.chained()?, asked.netns()?);
    let settings = settings::allowed(&config.sysctl, &asked.at.interface)?;
    asked.inside(&netns, || {
        for (path, wanted) in &settings {
            let found = fs::read_to_string(path).context(|| format!("read {}", path.display()))?;
            let found = found.trim_end_matches('\n');
            if found != wanted {
                let path = path.display();
                return Err(Error::precondition(format!(
                    "{path} is configured as {wanted:?}, current value is {found:?}"
                )));
            }
        }
        config.link.check(&Links::open()?.named(&asked.at.interface)?)
    })
}

pub(super) fn status(asked: &Asked) -> Result<()> {
    let config = Config::of(asked)?;
    settings::allowed(&config.sysctl, "eth0").map(drop)
}
