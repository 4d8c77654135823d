//! The operations of one thread: what is done, how long each step took, and how it ended.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::error::Result;
use super::measure::{Measured, Return};
use super::record::{Key, Layout, fill, fill_field, is_filled, is_whole};
use super::table::Scratch;
use super::target::{Target, error_kind};
use super::workload::Operation;

/// An operation, with everything that chance has to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub operation: Operation,
    /// The number of the record.
    pub number: u64,
    /// How many records a scan reads; 1 otherwise.
    pub length: u64,
}

/// A part of an operation that has a latency of its own.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) what: Measured,
    pub(super) start: Instant,
    pub(super) end: Instant,
    pub(super) result: Return,
    pub(super) error: Option<String>,
}

/// What a thread works with.
#[derive(Debug)]
pub(super) struct Session<'a> {
    target: &'a Target,
    layout: Layout,
    read_all_fields: bool,
    write_all_fields: bool,
    rng: SmallRng,
    scratch: Scratch,
    field: Vec<u8>,
    /// Where what was read is copied to, as a caller would have it.
    copied: Vec<u8>,
    pub(super) steps: Vec<Step>,
}

impl<'a> Session<'a> {
    pub(super) fn new(target: &'a Target, read_all_fields: bool, write_all_fields: bool, seed: u64) -> Self {
        let layout = target.layout().clone();
        let field = vec![0; layout.field_bytes as usize];
        Session {
            target,
            read_all_fields,
            write_all_fields: write_all_fields || layout.field_count == 1,
            rng: SmallRng::seed_from_u64(seed),
            scratch: Scratch::default(),
            field,
            copied: Vec::new(),
            steps: Vec::with_capacity(4),
            layout,
        }
    }

    /// Does an operation. `steps` has its parts then, the last of which is the operation.
    pub(super) fn run(&mut self, request: &Request) {
        self.steps.clear();
        let (number, key) = (request.number, Key::of(&self.layout, request.number));
        match request.operation {
            Operation::Read => self.read(number, &key),
            Operation::Update => self.update(number, &key),
            Operation::Insert => self.insert(number, &key),
            Operation::Scan => self.scan(request, &key),
            Operation::ReadModifyWrite => self.read_modify_write(number, &key),
        }
    }

    fn step(&mut self, operation: Operation, start: Instant, end: Instant, result: Result<Return>) {
        let (result, error) = match result {
            Ok(result) => (result, None),
            Err(error) => {
                tracing::debug!(operation = operation.name(), %error, "an operation failed");
                (Return::Error, Some(error_kind(&error)))
            }
        };
        self.steps.push(Step { what: series_of(operation, result), start, end, result, error });
    }

    fn verified(&mut self, start: Instant, end: Instant, is_right: bool) {
        let result = if is_right { Return::Ok } else { Return::UnexpectedState };
        self.steps.push(Step { what: Measured::Verify, start, end, result, error: None });
    }

    fn read(&mut self, number: u64, key: &Key) {
        let start = Instant::now();
        let read = self.target.read(number, key, &mut self.scratch).map(found);
        let is_found = matches!(read, Ok(Return::Ok));
        // All of the record was copied out. Where one field is wanted, that is one copy more.
        let field = if self.read_all_fields { None } else { Some(self.any_field()) };
        if let Some(field) = field.filter(|_| is_found) {
            self.copied.clear();
            self.copied.extend_from_slice(&self.scratch.record[self.layout.field(field)]);
        }
        let end = Instant::now();
        if self.layout.data_integrity && is_found {
            let content = key.content();
            let is_right = match field {
                Some(field) => is_filled(content, field, &self.copied),
                None => is_whole(&self.layout, content, &self.scratch.record),
            };
            self.verified(end, Instant::now(), is_right);
        }
        self.step(Operation::Read, start, end, read);
    }

    fn any_field(&mut self) -> u32 {
        if self.layout.field_count == 1 { 0 } else { self.rng.random_range(0..self.layout.field_count) }
    }

    /// By what a record's content is made: its key, or anything, where nobody will look at it.
    fn content(&mut self, key: &Key) -> u64 {
        if self.layout.data_integrity { key.content() } else { self.rng.random() }
    }

    fn fill_record(&mut self, key: &Key) {
        let content = self.content(key);
        self.scratch.record.resize(self.layout.record_bytes(), 0);
        fill(&self.layout, content, &mut self.scratch.record);
    }

    fn update(&mut self, number: u64, key: &Key) {
        let start;
        let result = if self.write_all_fields {
            self.fill_record(key);
            start = Instant::now();
            self.target.replace(number, key, &mut self.scratch)
        } else {
            let (field, content) = (self.any_field(), self.content(key));
            fill_field(content, field, &mut self.field);
            start = Instant::now();
            self.target.write_field(number, key, field, &self.field, &mut self.scratch)
        };
        self.step(Operation::Update, start, Instant::now(), result.map(found));
    }

    fn insert(&mut self, number: u64, key: &Key) {
        self.fill_record(key);
        let start = Instant::now();
        let result = self.target.insert(number, key, &mut self.scratch);
        self.step(Operation::Insert, start, Instant::now(), result.map(|()| Return::Ok));
    }

    fn scan(&mut self, request: &Request, key: &Key) {
        let layout = &self.layout;
        let (mut is_right, mut verified_for) = (true, Duration::ZERO);
        let start = Instant::now();
        let result = self.target.scan(request.number, key, request.length, &mut self.scratch, |keys, records, span| {
            if layout.data_integrity {
                let start = Instant::now();
                let mut pairs = keys.iter().zip(records.chunks(span));
                is_right &= pairs.all(|(key, record)| is_whole(layout, key.content(), record));
                verified_for += start.elapsed();
            }
        });
        let end = Instant::now();
        // What was verified in between is no part of the scan's time.
        let scanned = end.checked_sub(verified_for).unwrap_or(end);
        if self.layout.data_integrity && result.is_ok() {
            self.verified(scanned, end, is_right);
        }
        self.step(Operation::Scan, start, scanned, result.map(|count| found(count > 0)));
    }

    fn read_modify_write(&mut self, number: u64, key: &Key) {
        let start = Instant::now();
        self.read(number, key);
        self.update(number, key);
        let end = Instant::now();
        let failed = self.steps.iter().map(|step| step.result).find(|result| *result != Return::Ok);
        let (operation, result) = (Operation::ReadModifyWrite, failed.unwrap_or(Return::Ok));
        self.steps.push(Step { what: series_of(operation, result), start, end, result, error: None });
    }
}

fn series_of(operation: Operation, result: Return) -> Measured {
    match result {
        Return::Ok => Measured::Operation(operation),
        _ => Measured::Failed(operation),
    }
}

fn found(found: bool) -> Return {
    if found { Return::Ok } else { Return::NotFound }
}
