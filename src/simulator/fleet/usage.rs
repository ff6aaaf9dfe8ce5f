//! Curves of seats and usage over time.

use jiff::civil::{Date, date};

use super::seeded_draw::SeededDraw;

/// Days from one turning point of a curve to the next.
const STRIDE: i64 = 16;

/// The time after which a customer buys or returns seats.
const CONTRACT_DAYS: i64 = 90;

/// Returns the seats of a product on a day, which change rarely and are equal for all its workloads.
pub(super) fn qualified(product: SeededDraw, day: Date, seats: u64) -> u64 {
    let contract = day_number(day).div_euclid(CONTRACT_DAYS);
    let change = product
        .with_text("contract")
        .with_word(contract.cast_unsigned());
    seats + change.number_below(seats / 5 + 1)
}

/// Returns the seats in use on a day: a curve between turning points with daily noise, never above
/// `qualified`.
pub(super) fn active(workload: SeededDraw, day: Date, qualified: u64) -> u64 {
    let day = day_number(day);
    let (turn, into) = (day.div_euclid(STRIDE), day.rem_euclid(STRIDE));
    let (before, after) = (level(workload, turn), level(workload, turn + 1));
    let along = (before * (STRIDE - into) + after * into) / STRIDE;
    let noise = workload
        .with_text("tremble")
        .with_word(day.cast_unsigned())
        .number_below(60);
    let permille = (along.unsigned_abs() + noise).min(1_000);
    qualified * permille / 1_000
}

/// Returns the share of a product in use at a turning point, in thousandths.
fn level(workload: SeededDraw, turn: i64) -> i64 {
    let drawn = workload
        .with_text("level")
        .with_word(turn.cast_unsigned())
        .number_below(850);
    100 + drawn.cast_signed()
}

fn day_number(day: Date) -> i64 {
    day.duration_since(date(2000, 1, 1))
        .as_hours()
        .div_euclid(24)
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn days() -> impl Iterator<Item = Date> {
        date(2026, 1, 1).series(1.day()).take(400)
    }

    #[test]
    fn usage_changes_daily_and_never_exceeds_the_seats() {
        let draw = SeededDraw::new(7);

        let usage: Vec<_> = days().map(|day| active(draw, day, 500)).collect();

        assert!(usage.iter().all(|&active| active <= 500));
        let moved = usage.windows(2).filter(|days| days[0] != days[1]).count();
        assert!(moved > 300, "moved on {moved} of 399 days");
    }
}
