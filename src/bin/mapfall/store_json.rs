//! What the store's commands have in common in what they tell programs.

use std::path::Path;

use mapfall::{BlockAddr, CheckpointInfo, Part, Problem, StoreInfo};
use serde::Serialize;

use crate::store_text::{hex, uuid};

/// A store, as `create` and `info` tell of it.
#[derive(Debug, Serialize)]
pub(crate) struct Info {
    file: String,
    format_version: u32,
    uuid: String,
    unit_bytes: u32,
    page_bytes: u32,
    checksum: &'static str,
    generation: u64,
    next_write: u64,
    pages: u64,
    page_limit: u64,
    cookie_hex: String,
    kept_checkpoints: Vec<Kept>,
    file_bytes: u64,
    header_bytes: u64,
    used_bytes: u64,
    block_bytes: u64,
    held_extents: u64,
    /// Nothing where the list cannot be read.
    held_bytes: Option<u64>,
    free_bytes: u64,
    is_open_for_writing: Option<bool>,
}

/// A kept checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct Kept {
    name: String,
    generation: u64,
    pages: u64,
    cookie_hex: String,
}

/// A problem that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    kind: &'static str,
    part: String,
    page: Option<u64>,
    offset: u64,
    text: String,
}

/// Where something is.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    offset: u64,
    len_bytes: u32,
    generation: u64,
}

/// A path as text; what of it is no text is replaced.
pub(crate) fn path(path: &Path) -> String {
    path.display().to_string()
}

impl Info {
    pub(crate) fn new(file: &Path, info: &StoreInfo, held_bytes: Option<u64>) -> Self {
        Info {
            file: path(file),
            format_version: info.format_version,
            uuid: uuid(info.uuid),
            unit_bytes: info.unit_bytes,
            page_bytes: info.page_bytes,
            checksum: info.checksum.name(),
            generation: info.generation,
            next_write: info.next_write,
            pages: info.pages,
            page_limit: info.page_limit,
            cookie_hex: hex(&info.cookie),
            kept_checkpoints: info.kept_checkpoints.iter().map(Kept::new).collect(),
            file_bytes: info.file_bytes,
            header_bytes: info.header_bytes,
            used_bytes: info.used_bytes,
            block_bytes: info.block_bytes,
            held_extents: info.held_extents,
            held_bytes,
            free_bytes: info.free_bytes,
            is_open_for_writing: info.is_open_for_writing,
        }
    }
}

impl Kept {
    pub(crate) fn new(kept: &CheckpointInfo) -> Self {
        let CheckpointInfo { name, generation, pages, cookie } = kept;
        Kept { name: name.clone(), generation: *generation, pages: *pages, cookie_hex: hex(cookie) }
    }
}

impl Found {
    pub(crate) fn new(problem: &Problem) -> Self {
        let (part, page) = match problem.part {
            Part::Page(page) => ("page".to_owned(), Some(page)),
            part => (part.to_string(), None),
        };
        Found { kind: problem.kind.name(), part, page, offset: problem.offset, text: problem.text.clone() }
    }
}

impl Place {
    pub(crate) fn new(address: &BlockAddr) -> Self {
        Place { offset: address.offset(), len_bytes: address.len_bytes(), generation: address.generation() }
    }
}
