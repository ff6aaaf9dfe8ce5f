use proptest::prelude::*;

use super::*;

fn anything_like_toml() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(
            keys::ALL
                .iter()
                .map(|key| key.name().to_owned())
                .collect::<Vec<_>>()
        ),
        prop::sample::select(vec![
            "=",
            "\n",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "#",
            "0x1f",
            "-1",
            "1e9",
            "15m",
            "true",
            ".",
            ",",
            "\"15m\"",
            "[cache]\n",
            "1979-05-27",
            "\"\"\"",
            "\\u0000",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(crate::properties::kept())]

    #[test]
    fn no_file_makes_it_panic(bytes in anything_like_toml()) {
        let file = TomlFile::new(bytes);

        if let Err(errors) = Config::load(file.sources()) {
            prop_assert!(!errors.faults().is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.faults().len());
        }
    }

    #[test]
    fn no_environment_makes_it_panic(
        key in prop::sample::select(keys::ALL.iter().map(|key| key.name()).collect::<Vec<_>>()),
        value in ".{0,24}",
        name in "USAGE_PROXY_{0,3}.{0,12}",
    ) {
        let sources = minimal()
            .with_variable(keys::variable(key), &value)
            .with_variable(name, value);

        match Config::load(sources) {
            Ok(config) => {
                let again = load(&config.effective());
                prop_assert_eq!(values(&again), values(&config));
            }
            Err(errors) => {
                prop_assert!(!errors.faults().is_empty());
                prop_assert_eq!(errors.to_string().lines().count(), errors.faults().len());
            }
        }
    }
}
