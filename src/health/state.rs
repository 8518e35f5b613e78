//! What can be said.

/// There is no "unknown": what cannot be proven is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Canaries make the trip, and a user's event came by lately.
    Flowing,
    /// Canaries make the trip, and nobody has posted lately.
    Quiet,
    /// This instance has only half of the way, so that only half of it is proven.
    NotExposed,
    /// Most of it flows.
    Degraded,
    /// Nothing is proven yet, and it is too early to call that broken.
    Starting,
    /// Every stream that the host may have is in use: nobody else gets in.
    Full,
    /// The log answers, and events do not come through.
    Stalled,
    /// The log does not answer.
    LogUnreachable,
}

/// What somebody should do who is told of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    None,
    Warn,
    Error,
}

impl State {
    pub const ALL: [Self; 8] = [
        Self::Flowing,
        Self::Quiet,
        Self::NotExposed,
        Self::Degraded,
        Self::Starting,
        Self::Full,
        Self::Stalled,
        Self::LogUnreachable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flowing => "flowing",
            Self::Quiet => "quiet",
            Self::NotExposed => "not_exposed",
            Self::Degraded => "degraded",
            Self::Starting => "starting",
            Self::Full => "full",
            Self::Stalled => "stalled",
            Self::LogUnreachable => "log_unreachable",
        }
    }

    /// Whether an outer check should be content: 200, and not 503.
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::Flowing | Self::Quiet | Self::NotExposed | Self::Degraded)
    }

    pub(super) fn alarm(self) -> Alarm {
        match self {
            Self::Flowing | Self::Quiet | Self::NotExposed | Self::Starting => Alarm::None,
            Self::Degraded => Alarm::Warn,
            Self::Full | Self::Stalled | Self::LogUnreachable => Alarm::Error,
        }
    }
}
