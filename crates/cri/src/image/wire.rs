//! An image in the kubelet's words.

use api::cri;
use types::Digest;
use types::reference::Reference;

use super::Image;

/// The image as lists and statuses have it.
pub fn image(image: &Image) -> cri::Image {
    let (repo_tags, repo_digests) = names(&image.references);
    let (uid, username) = user(&image.config.config.user);
    cri::Image {
        id: image.id.clone(),
        repo_tags,
        repo_digests,
        size: image.size,
        uid: uid.map(|value| cri::Int64Value { value }),
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// Names by tag, and names by digest. Ids, and what is no name of an image, are neither.
pub fn names(references: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for name in references.iter().filter(|name| name.parse::<Digest>().is_err()) {
        match Reference::normalize(name) {
            Ok(Reference { digest: Some(_), .. }) => digests.push(name.clone()),
            Ok(_) => tags.push(name.clone()),
            Err(_) => {}
        }
    }
    (tags, digests)
}

/// Who an image runs as: a number, or a name.
fn user(user: &str) -> (Option<i64>, String) {
    let user = user.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        assert_eq!(user(""), (None, String::new()));
        assert_eq!(user("1000:100"), (Some(1000), String::new()));
        assert_eq!(user("nobody:x"), (None, "nobody".to_owned()));
    }

    #[test]
    fn ids_are_no_names() {
        let digest = Digest::of(b"x").to_string();
        let by_digest = format!("r.io/a@{digest}");
        let names = names(&["r.io/a:1".to_owned(), by_digest.clone(), digest, "not a name".to_owned()]);
        assert_eq!(names, (vec!["r.io/a:1".to_owned()], vec![by_digest]));
    }
}
