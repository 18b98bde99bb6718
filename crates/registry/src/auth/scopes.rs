//! Scopes of tokens: `repository:library/alpine:pull,push`.

use std::collections::{BTreeMap, BTreeSet};

/// All of `scopes` once, sorted; what asks for the same resource is asked for together.
pub fn union<'a>(scopes: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut resources: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for scope in scopes {
        match scope.rsplit_once(':') {
            Some((resource, actions)) if resource.contains(':') => {
                resources.entry(resource).or_default().extend(actions.split(',').filter(|a| !a.is_empty()));
            }
            _ => {
                others.insert(scope.clone());
            }
        }
    }
    let join = |actions: BTreeSet<&str>| actions.into_iter().collect::<Vec<_>>().join(",");
    let resources = resources.into_iter().map(|(resource, actions)| format!("{resource}:{}", join(actions)));
    others.into_iter().chain(resources).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_resource_is_asked_for_once() {
        let scopes =
            ["repository:b:pull", "repository:a:push,pull", "repository:a:pull", "aws"].map(str::to_owned);
        assert_eq!(union(scopes.iter()), ["aws", "repository:a:pull,push", "repository:b:pull"]);
    }
}
