//! Who refers to whom, as numbers, and what can be reached from the roots.
//!
//! It is filled by one pass over the tables in their order, which is what a database does best, and costs about 60 bytes a
//! row and 16 a reference, until the mark is over.

use std::collections::HashSet;

use super::node::Id;

/// The references that were found.
#[derive(Default)]
pub(super) struct Graph {
    ids: Vec<Id>,
    /// Where each row's references begin in `targets`.
    starts: Vec<usize>,
    targets: Vec<Id>,
    roots: Vec<Id>,
    /// References that do not stand at the row that they come from: (from, to).
    links: Vec<(Id, Id)>,
}

impl Graph {
    /// Adds a row. The references that are added next are its.
    pub(super) fn row(&mut self, id: Id) {
        self.ids.push(id);
        self.starts.push(self.targets.len());
    }

    /// The row that was added last refers to `to`.
    pub(super) fn refer(&mut self, to: Id) {
        self.targets.push(to);
    }

    /// `from`, which need not be a row, refers to `to`.
    pub(super) fn link(&mut self, from: Id, to: Id) {
        self.links.push((from, to));
    }

    /// Something that stays, whether or not there is a row of it.
    pub(super) fn root(&mut self, id: Id) {
        self.roots.push(id);
    }

    /// Finds what can be reached, and in which order the rest can be removed. `flat` is kept without what it refers to.
    pub(super) fn mark(mut self, flat: &[Id]) -> Marked {
        self.links.sort_unstable();
        let order = self.sorted();
        let ids: Vec<Id> = order.iter().map(|place| self.ids[*place as usize]).collect();
        let mut marked =
            Marked { reached: vec![false; ids.len()], ids, others: HashSet::new(), dead: Vec::new() };
        let mut next = std::mem::take(&mut self.roots);
        while let Some(id) = next.pop() {
            if marked.add(id) {
                next.extend(self.references(&marked.ids, &order, id));
            }
        }
        for id in flat {
            marked.add(*id);
        }
        marked.dead = self.dead(&marked, &order);
        marked
    }

    /// Places of rows in order of their numbers.
    fn sorted(&self) -> Vec<u32> {
        let count = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by_key(|place| self.ids[*place as usize]);
        order
    }

    /// What `id` refers to.
    fn references<'a>(&'a self, ids: &[Id], order: &[u32], id: Id) -> impl Iterator<Item = Id> + 'a {
        let own = match ids.binary_search(&id) {
            Ok(found) => {
                let place = order[found] as usize;
                let end = self.starts.get(place + 1).copied().unwrap_or(self.targets.len());
                &self.targets[self.starts[place]..end]
            }
            Err(_) => &[],
        };
        let links = self.links.partition_point(|(from, _)| *from < id);
        let links = self.links[links..].iter().take_while(move |(from, _)| *from == id);
        own.iter().copied().chain(links.map(|(_, to)| *to))
    }

    /// The rows that were not reached: whoever refers comes before what it refers to, as far as they do not refer in
    /// circles. So whatever is still there at any moment has all that it had.
    fn dead(&self, marked: &Marked, order: &[u32]) -> Vec<Id> {
        enum Step {
            Enter(Id),
            Leave(Id),
        }
        let dead = |id: Id| marked.ids.binary_search(&id).is_ok_and(|place| !marked.reached[place]);
        let mut seen = HashSet::new();
        let mut done = Vec::new();
        for start in marked.ids.iter().copied().filter(|id| dead(*id)) {
            let mut steps = vec![Step::Enter(start)];
            while let Some(step) = steps.pop() {
                match step {
                    Step::Leave(id) => done.push(id),
                    Step::Enter(id) if dead(id) && seen.insert(id) => {
                        steps.push(Step::Leave(id));
                        steps.extend(self.references(&marked.ids, order, id).map(Step::Enter));
                    }
                    Step::Enter(_) => {}
                }
            }
        }
        done.reverse();
        done
    }
}

/// What a mark has found.
pub(super) struct Marked {
    /// All rows there were, sorted.
    ids: Vec<Id>,
    reached: Vec<bool>,
    /// What is kept and was no row.
    others: HashSet<Id>,
    /// The rows that were not reached, in the order in which they can be removed.
    pub(super) dead: Vec<Id>,
}

impl Marked {
    /// Keeps `id`; says whether it was not kept before.
    pub(super) fn add(&mut self, id: Id) -> bool {
        match self.ids.binary_search(&id) {
            Ok(place) => !std::mem::replace(&mut self.reached[place], true),
            Err(_) => self.others.insert(id),
        }
    }

    /// Whether `id` is kept.
    pub(super) fn has(&self, id: Id) -> bool {
        match self.ids.binary_search(&id) {
            Ok(place) => self.reached[place],
            Err(_) => self.others.contains(&id),
        }
    }

    /// How many rows there were.
    pub(super) fn rows(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(rows: &[(Id, Vec<Id>)], links: &[(Id, Id)], roots: &[Id]) -> Graph {
        let mut graph = Graph::default();
        for (id, targets) in rows {
            graph.row(*id);
            targets.iter().for_each(|to| graph.refer(*to));
        }
        links.iter().for_each(|(from, to)| graph.link(*from, *to));
        roots.iter().for_each(|id| graph.root(*id));
        graph
    }

    #[test]
    fn what_roots_reach_is_kept_also_through_what_is_no_row() {
        let rows = [(5, vec![4]), (4, vec![3, 9]), (3, vec![]), (2, vec![3]), (1, vec![]), (7, vec![])];
        let marked = graph(&rows, &[(9, 1), (8, 7)], &[5]).mark(&[]);
        for kept in [5, 4, 3, 9, 1] {
            assert!(marked.has(kept), "{kept}");
        }
        assert_eq!(marked.dead.len(), 2);
        assert!(!marked.has(2) && !marked.has(7));
    }

    #[test]
    fn what_is_kept_flat_does_not_keep_what_it_refers_to() {
        let marked = graph(&[(1, vec![2]), (2, vec![])], &[], &[]).mark(&[1]);
        assert!(marked.has(1) && !marked.has(2));
        assert_eq!(marked.dead, [2]);
    }

    proptest! {
        #[test]
        fn whoever_refers_is_removed_before_what_it_refers_to(
            edges in proptest::collection::vec((0..20_u128, 0..20_u128), 0..60),
            roots in proptest::collection::vec(0..20_u128, 0..3),
        ) {
            // References to smaller numbers only: no circles.
            let rows: Vec<(Id, Vec<Id>)> = (0..20)
                .map(|id| (id, edges.iter().filter(|(a, b)| *a == id && b < a).map(|(_, b)| *b).collect()))
                .collect();
            let marked = graph(&rows, &[], &roots).mark(&[]);
            let place = |id: Id| marked.dead.iter().position(|dead| *dead == id);
            for (from, targets) in &rows {
                prop_assert_eq!(place(*from).is_none(), marked.has(*from));
                for to in targets {
                    prop_assert!(!marked.has(*from) || marked.has(*to));
                    if let (Some(from), Some(to)) = (place(*from), place(*to)) {
                        prop_assert!(from < to);
                    }
                }
            }
        }
    }
}
