//! Whom a container runs as: `USER` of the image, or what a client asks for, looked up in the root filesystem's own files.
//!
//! The text and the files come out of an image, so: a number is that number or an error, never a name that happens
//! to look like one (CVE-2024-40635, CVE-2026-46680); an entry whose id is no number is an error and not root. Whoever reads the
//! files (`read`, by a path below the root) refuses what is not regular, too large, or outside (CVE-2026-47262; `sys::view`).

use super::spec::User;
use crate::{Error, Result};

/// The largest id that runc takes.
const MAX: i64 = i32::MAX as i64;

/// What Go's `strconv.Atoi` finds.
enum Number {
    Is(i64),
    OutOfRange,
    Name,
}

fn number(text: &str) -> Number {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Number::Name;
    }
    text.parse().map_or(Number::OutOfRange, Number::Is)
}

/// One half of `user[:group]`: an id or a name.
enum Half<'a> {
    Id(u32),
    Name(&'a str),
}

fn half<'a>(text: &'a str, whole: &str, what: &str) -> Result<Half<'a>> {
    let bad = |why: &str| Err(Error::invalid(format!("invalid USER value {whole:?}: {why}")));
    match number(text) {
        Number::Is(id) if (0..=MAX).contains(&id) => Ok(Half::Id(u32::try_from(id).unwrap_or(u32::MAX))),
        Number::Is(_) | Number::OutOfRange => bad(&format!("{what} out of range")),
        // `1e3` or `0x0` may be a line of a hostile passwd file, but nobody's name.
        Number::Name if text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0X") => {
            bad(&format!("{what} is not a decimal number"))
        }
        Number::Name => Ok(Half::Name(text)),
    }
}

/// The user and main group that `text` means.
pub fn resolve(text: &str, read: impl Fn(&str) -> Result<Vec<u8>>) -> Result<User> {
    let (user, group) = match text.split(':').collect::<Vec<_>>()[..] {
        [user] => (half(user, text, "uid")?, None),
        [user, group] => (half(user, text, "uid")?, Some(half(group, text, "gid")?)),
        _ => return Err(Error::invalid(format!("invalid USER value {text}"))),
    };
    let (uid, own_gid) = match (&user, &group) {
        // With a group nothing has to be looked up.
        (Half::Id(uid), Some(_)) => (*uid, 0),
        (Half::Id(uid), None) => match find_user(&read, |entry| entry.id_is(*uid)) {
            Err(error) if error.is_not_found() => (*uid, 0),
            found => found?,
        },
        (Half::Name(name), _) => find_user(&read, |entry| entry.name == *name)?,
    };
    let gid = match group {
        None => own_gid,
        Some(Half::Id(gid)) => gid,
        Some(Half::Name("")) => 0,
        Some(Half::Name(name)) => find_group(&read, name)?,
    };
    Ok(User { uid, gid, additional_gids: Vec::new() })
}

/// The groups that `/etc/group` gives `user`, an id or a name. No files, no groups.
pub fn groups_of(user: &str, read: impl Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<u32>> {
    let name = match number(user) {
        Number::Is(uid) => {
            let passwd = match read("etc/passwd") {
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                passwd => passwd?,
            };
            let uid = u32::try_from(uid).ok();
            match entries(&passwd).find(|entry| uid.is_some_and(|uid| entry.id_is(uid))) {
                Some(entry) => entry.name.to_owned(),
                None => return Ok(Vec::new()),
            }
        }
        Number::OutOfRange | Number::Name => user.to_owned(),
    };
    let group = match read("etc/group") {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        group => group?,
    };
    let member =
        |entry: &Entry<'_>| entry.name != name && entry.fourth.split(',').any(|member| member == name);
    entries(&group).filter(member).map(|entry| entry.id("group")).collect()
}

fn find_user(
    read: impl Fn(&str) -> Result<Vec<u8>>,
    wanted: impl Fn(&Entry<'_>) -> bool,
) -> Result<(u32, u32)> {
    let passwd = read("etc/passwd")?;
    let entry = entries(&passwd).find(wanted).ok_or_else(|| Error::not_found("no users found"))?;
    Ok((entry.id("user")?, entry.gid()?))
}

fn find_group(read: impl Fn(&str) -> Result<Vec<u8>>, name: &str) -> Result<u32> {
    let group = read("etc/group")?;
    let entry = entries(&group).find(|entry| entry.name == name);
    entry.ok_or_else(|| Error::not_found("no groups found"))?.id("group")
}

/// A line of passwd or group: `name:password:id:fourth...`.
struct Entry<'a> {
    name: &'a str,
    id: &'a str,
    fourth: &'a str,
}

impl Entry<'_> {
    fn id_is(&self, id: u32) -> bool {
        self.id.parse() == Ok(id)
    }

    fn id(&self, what: &str) -> Result<u32> {
        self.exact(self.id, what)
    }

    fn gid(&self) -> Result<u32> {
        self.exact(self.fourth, "group")
    }

    fn exact(&self, text: &str, what: &str) -> Result<u32> {
        match text.parse() {
            Ok(id) if i64::from(id) <= MAX => Ok(id),
            _ => Err(Error::invalid(format!("{:?} has the invalid {what} id {text:?}", self.name))),
        }
    }
}

/// The lines that are not empty. What is not UTF-8 cannot be asked for and is left out.
fn entries(file: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let lines = file.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let mut fields = line.split(':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, _, id, fourth) = (next(), next(), next(), next());
        Entry { name, id, fourth }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/:\nweb:x:1000:1001::/:\n4294967296:x:0:0::/:\n1e3:x:0:0::/:\n-1:x:0:0::/:\nbad:x:zero:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:web\nwheel:x:10:root,web\nbad:x:ten:joe\n";

    fn read(name: &str) -> Result<Vec<u8>> {
        match name {
            "etc/passwd" => Ok(PASSWD.into()),
            "etc/group" => Ok(GROUP.into()),
            name => nothing(name),
        }
    }

    fn nothing(name: &str) -> Result<Vec<u8>> {
        Err(Error::not_found(name))
    }

    fn ids(text: &str) -> Option<(u32, u32)> {
        resolve(text, read).ok().map(|user| (user.uid, user.gid))
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(ids("web"), Some((1000, 1001)));
        assert_eq!(ids("1000"), Some((1000, 1001)));
        assert_eq!(ids("77"), Some((77, 0)));
        assert_eq!(ids("web:wheel"), Some((1000, 10)));
        assert_eq!(ids("5:6"), Some((5, 6)));
        assert_eq!(ids("5:wheel"), Some((5, 10)));
        assert_eq!(ids("+5"), Some((5, 0)));
        assert_eq!(ids("2147483647"), Some((2_147_483_647, 0)));
    }

    #[test]
    fn a_number_is_never_taken_for_root() {
        for bad in [
            "2147483648",
            "4294967295",
            "4294967296",
            "9223372036854775808",
            "18446744073709551616",
            "-1",
            "0x0",
            "1e3",
            " 0",
            "99999999999",
            "bad",
            "nobody",
            "a:b:c",
            "0:-1",
            "0:4294967296",
            "web:nogroup",
            "",
        ] {
            assert_eq!(ids(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn supplementary_groups_are_those_that_name_the_user() {
        assert_eq!(groups_of("web", read).unwrap(), [10]);
        assert_eq!(groups_of("1000", read).unwrap(), [10]);
        assert_eq!(groups_of("root", read).unwrap(), [10]);
        assert_eq!(groups_of("4242", read).unwrap(), [0; 0]);
        assert!(groups_of("joe", read).is_err());
    }

    #[test]
    fn without_the_files_a_number_is_itself_and_a_name_an_error() {
        assert_eq!(resolve("7", nothing).unwrap().uid, 7);
        assert!(resolve("web", nothing).is_err());
        assert_eq!(groups_of("root", nothing).unwrap(), [0; 0]);
    }
}
