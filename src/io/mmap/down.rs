//! Why no read of a file goes through its map.

use crate::stats::FallbackReason;

/// Why the whole map stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Down {
    Not,
    Unsupported,
    HandlerDeclined,
    HandlerReplaced,
    MapRefused,
    TooManyFaults,
}

impl Down {
    /// By number.
    pub(super) const ALL: [Down; 6] = [
        Down::Not,
        Down::Unsupported,
        Down::HandlerDeclined,
        Down::HandlerReplaced,
        Down::MapRefused,
        Down::TooManyFaults,
    ];

    /// What the statistics call it.
    pub(super) fn reason(self) -> Option<FallbackReason> {
        match self {
            Down::Not => None,
            Down::Unsupported => Some(FallbackReason::Unsupported),
            Down::HandlerDeclined => Some(FallbackReason::HandlerDeclined),
            Down::HandlerReplaced => Some(FallbackReason::HandlerReplaced),
            Down::MapRefused => Some(FallbackReason::MapRefused),
            Down::TooManyFaults => Some(FallbackReason::SuspectRegion),
        }
    }
}
