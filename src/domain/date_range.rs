use super::ProcessedDate;

/// A range of dates, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateRange {
    /// The first date.
    pub from: ProcessedDate,
    /// The last date.
    pub to: ProcessedDate,
}

// === impl DateRange ===

impl DateRange {
    /// All dates.
    pub const ALL: Self = Self {
        from: ProcessedDate::MIN,
        to: ProcessedDate::MAX,
    };

    /// The range of one date.
    pub fn of(date: ProcessedDate) -> Self {
        Self {
            from: date,
            to: date,
        }
    }

    /// Returns every date of the range, oldest first.
    pub fn dates(self) -> impl DoubleEndedIterator<Item = ProcessedDate> {
        let days = self.from.days_until(self.to);
        (0..=days).filter_map(move |day| self.from.plus_days(day))
    }
}
