//! Tests of the driver's parts together.

mod choosers;
mod phases;
mod tables;

use super::properties::Properties;
use super::workload::Workload;

/// A workload of these properties.
fn workload(pairs: &[&str]) -> Workload {
    let mut properties = Properties::new();
    pairs.iter().for_each(|pair| properties.set_pair(pair).unwrap());
    Workload::resolve(&properties).unwrap()
}
