//! Extents by offset, in a B+ tree that knows the longest extent of each subtree.
//!
//! That finds the first extent of a given length in one descent, which no map of the standard library does. The key of
//! an extent is its *end*: taking units from the front of an extent, or adding some there, leaves its key and its place
//! as they are.
//!
//! All leaves are at one depth, and a node other than the root holds between [`SIZE_MIN`] and [`SIZE_MAX`] items, so
//! the depth is logarithmic in the number of extents whatever the order of changes was.

use std::mem;

use super::Extent;

/// The most items of a node.
const SIZE_MAX: usize = 32;
/// The fewest, but in the root: far from half, so that a change to and fro does not split and merge each time.
const SIZE_MIN: usize = SIZE_MAX / 4;

/// Extents that do not overlap, by offset.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

/// A subtree, with what its parent needs to know of it. Only the root can be empty.
#[derive(Debug, Default)]
struct Node {
    /// The end of the last extent in it.
    last_end: u64,
    /// The length of the longest.
    longest: u64,
    items: Items,
}

#[derive(Debug)]
enum Items {
    Extents(Vec<Extent>),
    Nodes(Vec<Node>),
}

impl Default for Items {
    fn default() -> Self {
        Items::Extents(Vec::new())
    }
}

impl Tree {
    /// Gives the extent that ends at `end` this length: adds it if there is none, removes it if `len` is 0.
    pub(super) fn set(&mut self, end: u64, len: u64) {
        self.root.set(end, len);
        if let Some(right) = self.root.split() {
            let left = mem::take(&mut self.root);
            self.root = Node::new(Items::Nodes(vec![left, right]));
        } else if let Items::Nodes(nodes) = &mut self.root.items
            && nodes.len() == 1
            && let Some(only) = nodes.pop()
        {
            self.root = only;
        }
    }

    /// The first extent that ends at `unit` or behind it.
    pub(super) fn first_ending_from(&self, unit: u64) -> Option<Extent> {
        let mut node = &self.root;
        loop {
            match &node.items {
                Items::Extents(extents) => return extents.get(place(extents, unit)).copied(),
                Items::Nodes(nodes) => node = nodes.get(place_of_node(nodes, unit))?,
            }
        }
    }

    /// The first extent that is at least `len` long.
    pub(super) fn first_of_len(&self, len: u64) -> Option<Extent> {
        let mut node = &self.root;
        loop {
            match &node.items {
                Items::Extents(extents) => return extents.iter().find(|extent| extent.len >= len).copied(),
                Items::Nodes(nodes) => node = nodes.iter().find(|node| node.longest >= len)?,
            }
        }
    }

    pub(super) fn last(&self) -> Option<Extent> {
        self.first_ending_from(self.root.last_end)
    }

    /// The length of the longest extent, or 0.
    pub(super) fn longest(&self) -> u64 {
        self.root.longest
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Extent> {
        self.root.iter()
    }

    /// Whether the tree is what the header says it is.
    pub(super) fn validate(&self) -> Result<(), String> {
        self.root.validate(true).map(|_| ())
    }
}

impl Node {
    fn new(items: Items) -> Node {
        let mut node = Node { last_end: 0, longest: 0, items };
        node.sum_up();
        node
    }

    /// See [`Tree::set`]. May leave this node, but none below it, too large or too small.
    fn set(&mut self, end: u64, len: u64) {
        match &mut self.items {
            Items::Extents(extents) => {
                let at = place(extents, end);
                let present = extents.get(at).is_some_and(|extent| extent.end() == end);
                match (present, len) {
                    (false, 0) => {}
                    (true, 0) => _ = extents.remove(at),
                    (false, _) => extents.insert(at, Extent { start: end - len, len }),
                    (true, _) => extents[at] = Extent { start: end - len, len },
                }
            }
            Items::Nodes(nodes) => {
                let mut at = place_of_node(nodes, end).min(nodes.len() - 1);
                nodes[at].set(end, len);
                if nodes[at].size() < SIZE_MIN {
                    at = at.min(nodes.len() - 2);
                    let right = nodes.remove(at + 1);
                    nodes[at].append(right);
                }
                if let Some(right) = nodes[at].split() {
                    nodes.insert(at + 1, right);
                }
            }
        }
        self.sum_up();
    }

    /// Moves half of the items, if there are too many, to a new node on the right.
    fn split(&mut self) -> Option<Node> {
        let size = self.size();
        if size <= SIZE_MAX {
            return None;
        }
        let right = match &mut self.items {
            Items::Extents(extents) => Items::Extents(extents.split_off(size / 2)),
            Items::Nodes(nodes) => Items::Nodes(nodes.split_off(size / 2)),
        };
        self.sum_up();
        Some(Node::new(right))
    }

    /// Takes over what the node to the right has.
    fn append(&mut self, right: Node) {
        match (&mut self.items, right.items) {
            (Items::Extents(extents), Items::Extents(mut right)) => extents.append(&mut right),
            (Items::Nodes(nodes), Items::Nodes(mut right)) => nodes.append(&mut right),
            _ => unreachable!("siblings are at one depth"),
        }
        self.sum_up();
    }

    fn sum_up(&mut self) {
        (self.last_end, self.longest) = match &self.items {
            Items::Extents(extents) => (
                extents.last().map_or(0, |extent| extent.end()),
                extents.iter().map(|extent| extent.len).max().unwrap_or(0),
            ),
            Items::Nodes(nodes) => {
                (nodes.last().map_or(0, |node| node.last_end), nodes.iter().map(|node| node.longest).max().unwrap_or(0))
            }
        };
    }

    fn size(&self) -> usize {
        match &self.items {
            Items::Extents(extents) => extents.len(),
            Items::Nodes(nodes) => nodes.len(),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Extent> + '_> {
        match &self.items {
            Items::Extents(extents) => Box::new(extents.iter().copied()),
            Items::Nodes(nodes) => Box::new(nodes.iter().flat_map(Node::iter)),
        }
    }

    /// The depth below, if all is well.
    fn validate(&self, is_root: bool) -> Result<usize, String> {
        let size_min = match &self.items {
            _ if !is_root => SIZE_MIN,
            Items::Extents(_) => 0,
            Items::Nodes(_) => 2,
        };
        if !(size_min..=SIZE_MAX).contains(&self.size()) {
            return Err(format!("a node of {} items up to unit {}", self.size(), self.last_end));
        }
        let depth = match &self.items {
            Items::Extents(_) => 0,
            Items::Nodes(nodes) => {
                let depths = nodes.iter().map(|node| node.validate(false)).collect::<Result<Vec<_>, _>>()?;
                if depths.iter().any(|depth| *depth != depths[0]) {
                    return Err(format!("leaves at depths {depths:?} up to unit {}", self.last_end));
                }
                1 + depths[0]
            }
        };
        let (mut last_end, mut longest) = (0, 0);
        for extent in self.iter() {
            if extent.len == 0 || extent.start < last_end {
                return Err(format!("{extent:?} behind unit {last_end}"));
            }
            last_end = extent.end();
            longest = extent.len.max(longest);
        }
        if (last_end, longest) != (self.last_end, self.longest) {
            return Err(format!(
                "a node should end at unit {last_end} and have {longest} units at most, but says {} and {}",
                self.last_end, self.longest
            ));
        }
        Ok(depth)
    }
}

/// Where the extent that ends at `unit` stands or should stand.
fn place(extents: &[Extent], unit: u64) -> usize {
    extents.partition_point(|extent| extent.end() < unit)
}

/// Which node has that place; one too many if it is behind all of them.
fn place_of_node(nodes: &[Node], unit: u64) -> usize {
    nodes.partition_point(|node| node.last_end < unit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const EXTENTS: u64 = 10_000;

    /// Extents of 1 to 6 units, each at its multiple of 8 units.
    fn filled(ends: &[u64], rng: &mut StdRng) -> (Tree, BTreeMap<u64, u64>) {
        let (mut tree, mut lens) = (Tree::default(), BTreeMap::new());
        for (changes, &end) in ends.iter().enumerate() {
            let len = rng.random_range(1..7);
            tree.set(end, len);
            lens.insert(end, len);
            if changes % 1000 == 0 {
                agree(&tree, &lens);
            }
        }
        (tree, lens)
    }

    fn agree(tree: &Tree, lens: &BTreeMap<u64, u64>) {
        tree.validate().unwrap();
        assert!(tree.iter().map(|extent| (extent.end(), extent.len)).eq(lens.iter().map(|(end, len)| (*end, *len))));
        assert_eq!(tree.longest(), lens.values().copied().max().unwrap_or(0));
        assert_eq!(tree.last().map(Extent::end), lens.keys().last().copied());
        for len in 1..8 {
            let first = lens.iter().find(|(_, present)| **present >= len);
            assert_eq!(tree.first_of_len(len).map(Extent::end), first.map(|(end, _)| *end));
        }
        for unit in [0, 8, 9, EXTENTS * 4, EXTENTS * 4 + 1, EXTENTS * 8, EXTENTS * 8 + 1] {
            let first = lens.range(unit..).next();
            assert_eq!(tree.first_ending_from(unit).map(Extent::end), first.map(|(end, _)| *end));
        }
    }

    #[test]
    fn in_any_order_it_grows_and_shrinks_as_a_map_does() {
        let mut rng = StdRng::seed_from_u64(1);
        let rising: Vec<_> = (1..=EXTENTS).map(|at| at * 8).collect();
        let falling: Vec<_> = rising.iter().rev().copied().collect();
        let mut shuffled = rising.clone();
        shuffled.shuffle(&mut rng);
        for added in [&rising, &falling, &shuffled] {
            for removed in [&rising, &falling, &shuffled] {
                let (mut tree, mut lens) = filled(added, &mut rng);
                let depth = tree.root.validate(true).unwrap();
                assert!((2..=4).contains(&depth), "{depth} levels above the leaves");
                for (changes, end) in removed.iter().enumerate() {
                    tree.set(*end, 0);
                    lens.remove(end);
                    if changes % 1000 == 0 {
                        agree(&tree, &lens);
                    }
                }
                agree(&tree, &lens);
                assert_eq!((tree.root.size(), tree.root.validate(true)), (0, Ok(0)), "as at first");
            }
        }
    }

    #[test]
    fn a_length_changes_in_place() {
        let mut rng = StdRng::seed_from_u64(2);
        let rising: Vec<_> = (1..=EXTENTS).map(|at| at * 8).collect();
        let (mut tree, mut lens) = filled(&rising, &mut rng);
        for changes in 0..10_000 {
            let (end, len) = (rng.random_range(1..=EXTENTS) * 8, rng.random_range(1..7));
            tree.set(end, len);
            lens.insert(end, len);
            // No extent ends there, so there is none to remove.
            tree.set(end - 7, 0);
            if changes % 1000 == 0 {
                agree(&tree, &lens);
            }
        }
    }

    /// The fewest extents that a leaf may have, 1 unit each with 1 unit between them.
    fn leaf(at: u64) -> Node {
        let starts = (0..SIZE_MIN as u64).map(|extent| (at * SIZE_MIN as u64 + extent) * 2);
        Node::new(Items::Extents(starts.map(|start| Extent { start, len: 1 }).collect()))
    }

    #[test]
    fn validation_finds_what_is_broken() {
        let parent = |nodes: Vec<Node>| Node::new(Items::Nodes(nodes));
        let validated = |root: Node| Tree { root }.validate();
        let says = |what: &str, root: Node| {
            let validated = validated(root);
            assert!(validated.as_ref().is_err_and(|error| error.contains(what)), "{what}: {validated:?}");
        };
        let leaves = || vec![leaf(0), leaf(1), leaf(2)];
        assert_eq!(validated(parent(leaves())), Ok(()));
        says("should end at unit 47 and", Node { last_end: 48, ..parent(leaves()) });
        says("have 1 units at most, but says", Node { longest: 2, ..parent(leaves()) });
        says("have 1 units at most, but says", parent(vec![leaf(0), Node { longest: 0, ..leaf(1) }]));
        says("behind unit 31", parent(vec![leaf(1), leaf(0)]));
        says("len: 0 } behind unit 0", Node::new(Items::Extents(vec![Extent { start: 5, len: 0 }])));
        says("a node of 1 items", parent(vec![leaf(0)]));
        says("a node of 33 items", parent((0..=SIZE_MAX as u64).map(leaf).collect()));
        says("a node of 1 items", parent(vec![leaf(0), Node::new(Items::Extents(vec![Extent { start: 99, len: 1 }]))]));
        let deep = parent((1..=SIZE_MIN as u64).map(leaf).collect());
        says("leaves at depths [0, 1]", parent(vec![leaf(0), deep]));
    }
}
