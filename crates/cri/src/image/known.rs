//! Images in memory: what is known of each name, and what that makes of each id. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use types::reference::Reference;
use types::{Digest, Error, Result};

use super::Image;
use super::facts::Facts;

/// The images.
#[derive(Debug, Default)]
pub struct Known {
    names: BTreeMap<String, Named>,
    images: BTreeMap<String, Arc<Image>>,
}

/// What a name points to.
#[derive(Clone, Debug)]
struct Named {
    id: String,
    target: Digest,
    pinned: bool,
}

impl Known {
    /// The image with this very name.
    pub fn named(&self, name: &str) -> Option<Arc<Image>> {
        self.names.get(name).and_then(|named| self.images.get(&named.id)).cloned()
    }

    /// The image whose id is, or alone begins with, `id`; with or without the algorithm.
    pub fn by_id(&self, id: &str) -> Result<Option<Arc<Image>>> {
        if id.is_empty() {
            return Ok(None);
        }
        let id = if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") };
        let mut begin = self.images.range(id.clone()..).take_while(|(key, _)| key.starts_with(&id));
        match (begin.next(), begin.next()) {
            (Some((key, image)), second) if *key == id || second.is_none() => Ok(Some(Arc::clone(image))),
            (Some(_), _) => Err(Error::invalid(format!("several images have ids that begin with {id:?}"))),
            (None, _) => Ok(None),
        }
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.images.values().cloned().collect()
    }

    /// What is known already of an image that this target is.
    pub fn facts(&self, target: &Digest) -> Option<Facts> {
        let named = self.names.values().find(|named| named.target == *target)?;
        self.images.get(&named.id).map(|image| Facts::of(image))
    }

    /// `name` points to `target` from now on, which is the image of `facts`.
    pub fn add(&mut self, name: &str, target: Digest, facts: &Facts, pinned: bool) {
        self.remove(name);
        let id = facts.id.to_string();
        self.names.insert(name.to_owned(), Named { id: id.clone(), target, pinned });
        self.rebuild(&id, Some(facts));
    }

    /// Nothing is called `name` any more.
    pub fn remove(&mut self, name: &str) {
        if let Some(Named { id, .. }) = self.names.remove(name) {
            let facts = self.images.get(&id).map(|image| Facts::of(image));
            self.rebuild(&id, facts.as_ref());
        }
    }

    /// Makes an image of all its names; without any there is none.
    fn rebuild(&mut self, id: &str, facts: Option<&Facts>) {
        let named = || self.names.iter().filter(|(_, named)| named.id == id);
        let mut references: Vec<String> = named().map(|(name, _)| name.clone()).collect();
        references.sort_by_cached_key(|name| (rank(name), name.clone()));
        let pinned = named().any(|(_, named)| named.pinned);
        match facts.filter(|_| !references.is_empty()) {
            Some(facts) => drop(self.images.insert(id.to_owned(), Arc::new(facts.image(references, pinned)))),
            None => drop(self.images.remove(id)),
        }
    }
}

/// The more a name says the smaller: tag and digest, tag, digest, name, id.
fn rank(name: &str) -> u8 {
    if name.parse::<Digest>().is_ok() {
        return 4;
    }
    match Reference::normalize(name) {
        Ok(Reference { tag: Some(_), digest: Some(_), .. }) => 0,
        Ok(Reference { tag: Some(_), .. }) => 1,
        Ok(Reference { digest: Some(_), .. }) => 2,
        Ok(_) => 3,
        Err(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use types::oci::ImageConfig;

    use super::*;

    fn facts(text: &str) -> Facts {
        Facts {
            id: Digest::of(text.as_bytes()),
            chain_id: "c".into(),
            size: 1,
            config: ImageConfig::default(),
            checkpoint: false,
        }
    }

    #[test]
    fn an_image_has_all_names_that_point_to_it_and_goes_with_the_last() {
        let (mut known, target) = (Known::default(), Digest::of(b"target"));
        let (one, id) = (facts("one"), Digest::of(b"one").to_string());
        let by_digest = format!("r.io/a@{target}");
        for name in [id.as_str(), by_digest.as_str(), "r.io/a:1"] {
            known.add(name, target.clone(), &one, name == "r.io/a:1");
        }
        let image = known.named("r.io/a:1").unwrap();
        assert_eq!(image.references, ["r.io/a:1", by_digest.as_str(), id.as_str()]);
        assert!(image.pinned);
        // The tag goes to another image.
        known.add("r.io/a:1", Digest::of(b"other"), &facts("two"), false);
        let image = known.by_id(&id).unwrap().unwrap();
        assert_eq!(image.references, [by_digest.as_str(), id.as_str()]);
        assert!(!image.pinned);
        assert_eq!(known.list().len(), 2);
        known.remove(&by_digest);
        known.remove(&id);
        assert!(known.by_id(&id).unwrap().is_none());
        assert_eq!(known.list().len(), 1);
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_with_or_without_the_algorithm() {
        let mut known = Known::default();
        let id = Digest::of(b"one").to_string();
        known.add("r.io/a:1", Digest::of(b"target"), &facts("one"), false);
        let hex = id.strip_prefix("sha256:").unwrap();
        for text in [&id, &id[..15], hex, &hex[..6]] {
            assert_eq!(known.by_id(text).unwrap().unwrap().id, id, "{text}");
        }
        assert!(known.by_id("").unwrap().is_none() && known.by_id("zz").unwrap().is_none());
    }

    #[test]
    fn what_is_known_of_a_target_is_known_for_its_other_names() {
        let mut known = Known::default();
        known.add("r.io/a:1", Digest::of(b"target"), &facts("one"), false);
        assert_eq!(known.facts(&Digest::of(b"target")).unwrap().id, Digest::of(b"one"));
        assert!(known.facts(&Digest::of(b"other")).is_none());
    }
}
