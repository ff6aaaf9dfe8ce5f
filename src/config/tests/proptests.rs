use proptest::prelude::*;

use super::*;

fn toml_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(
            keys::all()
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
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn no_file_causes_a_panic(bytes in toml_like_bytes()) {
        let file = TomlFile::new(bytes);

        if let Err(errors) = Config::load(file.sources()) {
            prop_assert!(!errors.errors().is_empty());
            prop_assert_eq!(errors.to_string().lines().count(), errors.errors().len());
        }
    }

    #[test]
    fn no_environment_causes_a_panic(
        variable in prop::sample::select(keys::all().map(|key| key.variable()).collect::<Vec<_>>()),
        value in ".{0,24}",
        name in "USAGE_PROXY_{0,3}.{0,12}",
    ) {
        let sources = minimal()
            .with_variable(variable, &value)
            .with_variable(name, value);

        match Config::load(sources) {
            Ok(config) => {
                let again = load(&config.effective());
                prop_assert_eq!(values(&again), values(&config));
            }
            Err(errors) => {
                prop_assert!(!errors.errors().is_empty());
                prop_assert_eq!(errors.to_string().lines().count(), errors.errors().len());
            }
        }
    }
}
