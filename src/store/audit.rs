//! Going through all that a checkpoint refers to, whatever state it is in.

use super::held;
use super::inner::Freed;
use super::table::{decode_entries, page_address};
use super::units::Units;
use super::verify::{Problem, ProblemKind, VerifyReport};
use super::volume::{Volume, take_some};
use crate::error::{Error, Part};
use crate::extent::Extent;
use crate::format::{BlockAddr, Entry, Name, Names, PAGES_MAX, PageState, RECORD_BYTES, Record, Slot, Tree};
use crate::tree::{Flow, walk};

/// At most so many problems are told of one by one.
const PROBLEMS_MAX: usize = 1000;

/// What an audit has found so far.
pub(super) struct Audit<'a> {
    volume: &'a Volume,
    slot: &'a Slot,
    /// The end of what is looked at, units: the slot's, or behind it.
    end: u64,
    /// Whether pages and blocks are read.
    contents: bool,
    /// What something refers to.
    pub(super) claimed: Units,
    /// What the space map says.
    pub(super) mapped: Units,
    /// First units of pages whose bytes were proven, or told of.
    seen: Units,
    pub(super) report: VerifyReport,
    progress: &'a mut dyn FnMut(&VerifyReport),
    /// Pages and blocks to be read next, together.
    unread: Vec<(Part, BlockAddr)>,
    buf: Vec<u8>,
}

impl<'a> Audit<'a> {
    pub(super) fn new(
        volume: &'a Volume,
        slot: &'a Slot,
        end: u64,
        contents: bool,
        progress: &'a mut dyn FnMut(&VerifyReport),
    ) -> Self {
        let report = VerifyReport {
            generation: slot.generation,
            unit_bytes: volume.geometry.unit_bytes,
            units: end,
            ..VerifyReport::default()
        };
        let mut audit = Audit {
            volume,
            slot,
            end,
            contents,
            claimed: Units::default(),
            mapped: Units::default(),
            seen: Units::default(),
            report,
            progress,
            unread: Vec::new(),
            buf: Vec::new(),
        };
        let header = Extent { start: 0, len: volume.geometry.data_start_units().min(end) };
        // An empty set has room for it.
        let _ = audit.claimed.claim(header);
        let _ = audit.mapped.claim(header);
        audit
    }

    pub(super) fn problem(&mut self, kind: ProblemKind, part: Part, offset: u64, text: String) {
        self.report.problems_total += 1;
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem { kind, part, offset, text });
        }
    }

    fn note_error(&mut self, part: Part, offset: u64, error: Error) {
        let (kind, text) = match error {
            Error::Corrupt { problem, .. } => (ProblemKind::Damaged, problem),
            error => (ProblemKind::Unreadable, error.to_string()),
        };
        self.problem(kind, part, offset, text);
    }

    /// Notes that something is there. Says whether it can be.
    fn claim(&mut self, part: Part, extent: Extent) -> bool {
        let geometry = self.volume.geometry;
        let offset = geometry.offset(extent.start);
        let end = extent.start.saturating_add(extent.len);
        if extent.len == 0 || extent.start < geometry.data_start_units() || end > self.end {
            let (start, units) = (geometry.data_start_units(), self.end);
            let text = format!("units {}..{end} are not all within {start}..{units}", extent.start);
            self.problem(ProblemKind::OutOfRange, part, offset, text);
            return false;
        }
        if let Err(unit) = self.claimed.claim(extent) {
            let text = format!("the unit at {} is something else's too", geometry.offset(unit));
            self.problem(ProblemKind::UsedTwice, part, offset, text);
        }
        true
    }

    /// All of the checkpoint.
    pub(super) fn checkpoint(&mut self, names: &Names) {
        let slot = self.slot;
        self.page_table(&slot.pages, slot.page_limit, None);
        let held = self.held();
        self.space_map();
        self.others();
        for name in &names.0 {
            self.page_table(&name.pages, name.page_limit, Some(name));
            self.report.kept_checkpoints += 1;
        }
        for freed in held {
            if !names.0.iter().any(|name| freed.is_seen_by(name.generation, name.sequence)) {
                let offset = self.volume.geometry.offset(freed.extent.start);
                self.problem(ProblemKind::Leaked, Part::HeldList, offset, format!("held for nobody: {freed:?}"));
            }
        }
    }

    /// A tree's nodes: claims them, proves them, and holds their counts against what is below. `leaf` gets each leaf's
    /// number, its words and the count that its parent has, and says what it counted.
    fn nodes(&mut self, part: Part, tree: &Tree, kept: bool, leaf: &mut dyn FnMut(&mut Self, u64, &[u64]) -> u64) {
        let volume = self.volume;
        let nodes = volume.nodes(part);
        let result = walk(nodes, tree, 0, &mut |node| {
            let (child, offset) = (node.child, volume.geometry.offset(node.child.offset_units));
            let extent = Extent { start: child.offset_units, len: volume.geometry.node_units() };
            let fits = if kept { self.kept_claim(part, extent) } else { self.claim(part, extent) };
            if !fits {
                return Ok(Flow::Past);
            }
            self.report.nodes += 1;
            let counted = if node.height == 0 {
                nodes.read_leaf(&child).map(|words| leaf(self, node.first_leaf, &words))
            } else {
                let sum = |children: Vec<crate::format::Child>| children.iter().map(|child| child.count).sum();
                nodes.read_children(&child).map(sum)
            };
            match counted {
                Ok(counted) if counted != child.count => {
                    let text = format!("expected a count of {}, found {counted}", child.count);
                    self.problem(ProblemKind::Damaged, part, offset, text);
                }
                Ok(_) => {}
                Err(error) => {
                    self.note_error(part, offset, error);
                    return Ok(Flow::Past);
                }
            }
            Ok(Flow::Down)
        });
        if let Err(error) = result {
            self.note_error(part, 0, error);
        }
    }

    /// Something that a kept checkpoint has must be the last one's too, or held.
    fn kept_claim(&mut self, part: Part, extent: Extent) -> bool {
        let held = extent.end() <= self.end && self.claimed.contains_all(extent);
        if !held {
            let text = "a kept checkpoint has it, and nothing keeps it from being used again".to_owned();
            self.problem(ProblemKind::NotInMap, part, self.volume.geometry.offset(extent.start), text);
        }
        extent.end() <= self.end
    }

    fn page_table(&mut self, tree: &Tree, limit: u64, kept: Option<&Name>) {
        let leaf_pages = self.volume.geometry.leaf_pages();
        self.nodes(Part::PageTable, tree, kept.is_some(), &mut |audit, leaf, words| {
            let first = leaf.saturating_mul(leaf_pages).min(PAGES_MAX);
            let Some(entries) = decode_entries(audit.volume, words) else {
                let text = format!("the leaf of page {first} has values that no page has");
                audit.problem(ProblemKind::Damaged, Part::PageTable, 0, text);
                return 0;
            };
            for (page, entry) in (first..).zip(&entries) {
                audit.page(page, *entry, limit, kept);
            }
            audit.read_contents();
            entries.iter().filter(|entry| entry.is_live()).count() as u64
        });
    }

    fn page(&mut self, page: u64, entry: Entry, limit: u64, kept: Option<&Name>) {
        let part = Part::Page(page);
        if entry.is_live() && kept.is_none() {
            self.report.pages += 1;
            if self.report.pages.is_multiple_of(1024) {
                (self.progress)(&self.report);
            }
        }
        let PageState::Stored { offset_units, sequence, checksum } = entry.state() else {
            if entry.is_live() && page >= limit {
                self.problem(ProblemKind::OutOfRange, part, 0, format!("expected a number below {limit}"));
            }
            return;
        };
        let address = page_address(self.volume, offset_units, sequence, checksum);
        if page >= limit {
            self.problem(ProblemKind::OutOfRange, part, address.offset, format!("expected a number below {limit}"));
        }
        let extent = Extent { start: offset_units, len: self.volume.geometry.page_units() };
        let fits = if kept.is_some() { self.kept_claim(part, extent) } else { self.claim(part, extent) };
        if fits && self.contents && self.seen.claim(Extent { start: offset_units, len: 1 }).is_ok() {
            self.unread.push((part, address));
        }
    }

    /// Reads and proves what is still to be read.
    fn read_contents(&mut self) {
        let volume = self.volume;
        let (unread, mut buf) = (std::mem::take(&mut self.unread), std::mem::take(&mut self.buf));
        let mut parts = unread.iter().map(|(part, _)| *part);
        let mut addresses = unread.iter().map(|(_, address)| *address);
        loop {
            let some = take_some(&mut addresses);
            if some.is_empty() {
                break;
            }
            volume.read_blocks(&some, &mut buf, |address, bytes| {
                let part = parts.next().unwrap_or(Part::Block);
                self.report.bytes_verified += u64::from(address.len_bytes);
                let proven = bytes.map_err(|error| volume.explain(part, error));
                if let Err(error) = proven.and_then(|bytes| volume.prove(part, address, bytes)) {
                    self.note_error(part, address.offset, error);
                }
            });
        }
        self.buf = buf;
    }

    fn held(&mut self) -> Vec<Freed> {
        let (volume, tree) = (self.volume, self.slot.held);
        self.nodes(Part::HeldList, &tree, false, &mut |_, _, words| {
            words.as_chunks::<4>().0.iter().filter(|words| words[1] != 0).count() as u64
        });
        let held = match held::read(volume, &tree) {
            Ok(held) => held,
            Err(error) => {
                self.note_error(Part::HeldList, 0, error);
                Vec::new()
            }
        };
        for freed in &held {
            self.claim(Part::HeldList, freed.extent);
            self.report.held_units += freed.extent.len;
        }
        held
    }

    fn space_map(&mut self) {
        let leaf_units = self.volume.geometry.leaf_units();
        let (tree, end) = (self.slot.space, self.end);
        self.nodes(Part::SpaceMap, &tree, false, &mut |audit, leaf, words| {
            let mut count = 0;
            for (index, word) in (0_u64..).zip(words) {
                count += u64::from(word.count_ones());
                let first = leaf.saturating_mul(leaf_units).saturating_add(index * 64);
                for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                    let fits = first + bit < end && audit.mapped.claim(Extent { start: first + bit, len: 1 }).is_ok();
                    if !fits {
                        let offset = audit.volume.geometry.offset(first.saturating_add(bit) % (1 << 40));
                        let text = format!("unit {} cannot be in use", first.saturating_add(bit));
                        audit.problem(ProblemKind::OutOfRange, Part::SpaceMap, offset, text);
                    }
                }
            }
            count
        });
    }

    /// The list of kept checkpoints and the record.
    fn others(&mut self) {
        let geometry = self.volume.geometry;
        let list = self.slot.names;
        if !list.is_none() {
            self.claim(Part::Names, Extent { start: list.offset_units, len: geometry.units(list.count) });
        }
        let units = geometry.units(RECORD_BYTES as u64);
        let extent = Extent { start: self.slot.record_units, len: units };
        if self.slot.record_units == 0 || !self.claim(Part::Record, extent) {
            return;
        }
        let offset = geometry.offset(extent.start);
        let mut buf = [0; RECORD_BYTES];
        let record = self.volume.read_at(Part::Record, offset, &mut buf).map(|()| Record::decode(&buf));
        match record {
            Err(error) => self.note_error(Part::Record, offset, error),
            Ok(Some(record)) if record.slot == *self.slot && record.superblock == self.volume.superblock => {}
            Ok(_) => {
                let text = "it does not say what the slot says".to_owned();
                self.problem(ProblemKind::Damaged, Part::Record, offset, text);
            }
        }
    }

    /// A block that the embedder says is there.
    pub(super) fn block(&mut self, address: &BlockAddr) {
        let unit_bytes = u64::from(self.volume.geometry.unit_bytes);
        let extent = Extent {
            start: address.offset / unit_bytes,
            len: self.volume.geometry.units(u64::from(address.len_bytes)),
        };
        self.report.blocks += 1;
        if !address.offset.is_multiple_of(unit_bytes) {
            let text = format!("expected a multiple of {unit_bytes}");
            self.problem(ProblemKind::OutOfRange, Part::Block, address.offset, text);
        } else if self.claim(Part::Block, extent) && self.contents {
            self.unread.push((Part::Block, *address));
            self.read_contents();
        }
    }

    /// Holds what is referred to against the space map. `all_blocks`: the embedder named all of its blocks.
    pub(super) fn compare(&mut self, all_blocks: bool) {
        let geometry = self.volume.geometry;
        let claimed = std::mem::take(&mut self.claimed);
        let mapped = std::mem::take(&mut self.mapped);
        for extent in claimed.without(&mapped, 0, self.end) {
            let text = format!("{} units are in use, and free in the space map", extent.len);
            self.problem(ProblemKind::NotInMap, Part::SpaceMap, geometry.offset(extent.start), text);
        }
        let (mut unclaimed, raw_units) = (0, self.slot.raw_units);
        for extent in mapped.without(&claimed, 0, self.end) {
            unclaimed += extent.len;
            if all_blocks {
                let text = format!("nothing refers to {} units", extent.len);
                self.problem(ProblemKind::Leaked, Part::SpaceMap, geometry.offset(extent.start), text);
            }
        }
        self.report.block_units = raw_units;
        if !all_blocks && unclaimed != raw_units {
            let text =
                format!("blocks have {raw_units} units, but {unclaimed} are in use that are no page's or node's");
            self.problem(ProblemKind::Leaked, Part::SpaceMap, 0, text);
        }
        (self.claimed, self.mapped) = (claimed, mapped);
    }
}
