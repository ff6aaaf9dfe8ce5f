//! Curves of seats and usage over time.

use jiff::civil::{Date, date};

use super::seeded_draw::SeededDraw;

/// Days from one turning point of a curve to the next.
const STRIDE: i64 = 45;

/// The time after which a customer buys or returns seats.
const CONTRACT_DAYS: i64 = 90;

/// The time over which a new product comes into use.
const ADOPTION_DAYS: i64 = 60;

/// Returns the seats of a product on a day, which change rarely and are equal for all its workloads.
pub(super) fn qualified(product: SeededDraw, day: Date, seats: u64) -> u64 {
    // Otherwise all customers would buy on the same day.
    let offset = product.with_text("offset").number_below(90).cast_signed();
    let contract = (day_number(day) + offset).div_euclid(CONTRACT_DAYS);
    let change = product
        .with_text("contract")
        .with_word(contract.cast_unsigned());
    seats + change.number_below(seats / 5 + 1)
}

/// Returns the seats in use on a day, never more than `qualified`: a share of the workload's own, which
/// swings slowly and trembles a little each day. `since` is the first day of the product.
pub(super) fn active(workload: SeededDraw, day: Date, since: Date, qualified: u64) -> u64 {
    let base = 150 + workload.with_text("base").number_below(750).cast_signed();
    let number = day_number(day);
    let (turn, into) = (number.div_euclid(STRIDE), number.rem_euclid(STRIDE));
    let (before, after) = (swing(workload, turn), swing(workload, turn + 1));
    let swung = (before * (STRIDE - into) + after * into) / STRIDE;
    let tremble = workload
        .with_text("tremble")
        .with_word(number.cast_unsigned())
        .number_below(12)
        .cast_signed();
    let adopted = (number - day_number(since) + 1).min(ADOPTION_DAYS);
    let permille = (base + swung + tremble).clamp(0, 1_000) * adopted / ADOPTION_DAYS;
    qualified * permille.unsigned_abs() / 1_000
}

/// Returns the distance from the workload's own share at a turning point, in thousandths.
fn swing(workload: SeededDraw, turn: i64) -> i64 {
    let drawn = workload
        .with_text("swing")
        .with_word(turn.cast_unsigned())
        .number_below(241);
    drawn.cast_signed() - 120
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
    fn usage_changes_little_each_day_and_never_exceeds_the_seats() {
        let draw = SeededDraw::new(7);

        let usage: Vec<_> = days()
            .map(|day| active(draw, day, Date::MIN, 500))
            .collect();

        assert!(usage.iter().all(|&active| active <= 500));
        let steps = usage.windows(2).map(|days| days[0].abs_diff(days[1]));
        assert!(steps.clone().all(|step| step <= 10), "{usage:?}");
        let moved = steps.filter(|step| *step > 0).count();
        assert!(moved > 200, "moved on {moved} of 399 days");
    }

    #[test]
    fn a_new_product_comes_into_use_gradually() {
        let draw = SeededDraw::new(7);
        let first = date(2026, 1, 1);

        let usage: Vec<_> = days().map(|day| active(draw, day, first, 500)).collect();

        let established = active(draw, date(2026, 4, 1), Date::MIN, 500);
        assert!(usage[0] < established / 10);
        assert_eq!(usage[90], established);
    }
}
