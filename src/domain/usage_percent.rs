use std::fmt;

/// The percentage of qualified licenses that are active, to one decimal.
///
/// Every form of an answer shows this one, so that the same counts never have two percentages. It
/// can exceed 100. What Microsoft sends is cut off and adjusted, and is passed on beside it as
/// `reportedUsagePercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsagePercent {
    tenths: u128,
}

impl UsagePercent {
    const WHOLE_TENTHS: u128 = 1_000;

    /// Returns `active` ÷ `qualified` × 100, rounded half up; `None` when nothing qualified.
    ///
    /// Rounding never reaches an end of the scale: it is 0.0 only when nothing is active, and 100.0
    /// only when everything is.
    pub fn new(active: u64, qualified: u64) -> Option<Self> {
        if qualified == 0 {
            return None;
        }
        let (active, qualified) = (u128::from(active), u128::from(qualified));
        let rounded = (2 * active * Self::WHOLE_TENTHS + qualified) / (2 * qualified);
        let tenths = match active {
            0 => 0,
            active if active < qualified => rounded.clamp(1, Self::WHOLE_TENTHS - 1),
            _ => rounded,
        };
        Some(Self { tenths })
    }

    /// The percentage as a number, such as 72.4.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage of more than 53 bits has far more active than qualified licenses"
    )]
    pub fn as_f64(self) -> f64 {
        self.tenths as f64 / 10.0
    }
}

impl fmt::Display for UsagePercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.tenths / 10, self.tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_has_one_decimal_and_is_rounded_half_up() {
        for (active, qualified, expected) in [
            (118, 163, "72.4"),
            (0, 8, "0.0"),
            (3, 8, "37.5"),
            (2, 3, "66.7"),
            (1, 2_000, "0.1"),
            (1, 16, "6.3"),
            (8, 8, "100.0"),
            (7, 5, "140.0"),
            (100_001, 100_000, "100.0"),
            (u64::MAX, 1, "1844674407370955161500.0"),
        ] {
            let percent = UsagePercent::new(active, qualified).unwrap();

            assert_eq!(percent.to_string(), expected, "{active} of {qualified}");
        }
        assert_eq!(UsagePercent::new(118, 163).unwrap().as_f64(), 72.4);
    }

    #[test]
    fn rounding_never_reaches_zero_or_a_hundred() {
        for (active, qualified, expected) in [
            (1, 1_000_000, "0.1"),
            (99_999, 100_000, "99.9"),
            (u64::MAX - 1, u64::MAX, "99.9"),
        ] {
            let percent = UsagePercent::new(active, qualified).unwrap();

            assert_eq!(percent.to_string(), expected, "{active} of {qualified}");
        }
    }

    #[test]
    fn zero_qualified_has_no_percentage() {
        assert_eq!(UsagePercent::new(0, 0), None);
        assert_eq!(UsagePercent::new(5, 0), None);
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn the_number_and_the_text_agree(active in 0..1_u64 << 40, qualified in 1..1_u64 << 40) {
            let percent = UsagePercent::new(active, qualified).unwrap();

            prop_assert_eq!(percent.to_string().parse::<f64>().unwrap(), percent.as_f64());
            prop_assert_eq!(percent.to_string() == "0.0", active == 0);
            prop_assert!(percent.to_string() != "100.0" || active >= qualified);
        }
    }
}
