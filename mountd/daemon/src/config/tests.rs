use super::*;

#[test]
fn the_sample_shows_exactly_the_defaults() {
    let sample: Config =
        toml::from_str(include_str!("../../../../deploy/mountd.toml")).expect("the sample parses");
    assert_eq!(sample, Config::default());
    let text = include_str!("../../../../deploy/mountd.toml");
    let table: toml::Table =
        toml::from_str(&toml::to_string(&Config::default()).expect("a configuration encodes"))
            .expect("and decodes");
    for key in table.keys() {
        assert!(text.contains(key.as_str()), "the sample doesn't mention {key}");
    }
}

#[test]
fn the_defaults_are_valid() {
    Config::default().validate().expect("defaults are valid");
}

#[test]
fn every_fault_is_named_at_once() {
    let config = Config {
        listen: "0.0.0.0:7700".parse().expect("an address"),
        pools: vec![
            PoolConfig { path: "/a".into(), size: Some(5), class: Some("gold".into()) },
            PoolConfig { path: "/a".into(), size: None, class: None },
        ],
        timing: Timing { grace_ms: 1000, lease_ms: 1200, beacon_ms: 600, ..Timing::default() },
        memory: Memory { pool_mib: 0, ..Memory::default() },
        nbd: NbdConfig { listen: "here".into(), ..NbdConfig::default() },
        ..Config::default()
    };
    let Err(ConfigError::Faults(faults)) = config.validate() else {
        panic!("a configuration with faults was taken");
    };
    assert_eq!(faults.len(), 9, "{faults:?}");
}

#[test]
fn nbd_over_tcp_without_tls_is_refused_unless_it_is_asked_for() {
    let faults = |nbd: NbdConfig| match (Config { nbd, ..Config::default() }).validate() {
        Err(ConfigError::Faults(faults)) => faults,
        _ => Vec::new(),
    };
    let open = NbdConfig { listen: "10.0.0.1:10809".into(), ..NbdConfig::default() };
    assert_eq!(faults(open.clone()), [Fault::NbdUnprotected]);
    let plain = NbdConfig { plain: true, ..open.clone() };
    assert_eq!(faults(plain.clone()), []);
    let key = "/etc/mooring/key.pem";
    assert_eq!(faults(NbdConfig { key: key.into(), ..plain }), [Fault::NbdPlainAndTls]);
    assert_eq!(faults(NbdConfig { key: key.into(), ..open.clone() }), [Fault::NbdUnprotected]);
    let file = || std::path::PathBuf::from("/etc/mooring/a.pem");
    let whole = NbdConfig { certificate: file(), key: file(), authority: file(), ..open };
    assert_eq!(faults(whole), []);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = toml::from_str::<Config>("lisen = \"10.0.0.1:7700\"").expect_err("a typo");
    assert!(error.to_string().contains("lisen"), "{error}");
}

#[test]
fn zeromq_is_refused_until_the_configuration_says_that_it_is_unprotected() {
    let config = |text: &str| toml::from_str::<Config>(text).expect("it parses");
    let refused = config("[transport]\nkind = \"zeromq\"");
    let Err(ConfigError::Faults(faults)) = refused.validate() else { panic!("it was taken") };
    assert_eq!(faults, [Fault::Unprotected]);
    assert_eq!(refused.transport.unprotected(), Unprotected::Refused);
    assert_eq!(Config::default().transport.unprotected(), Unprotected::Refused);
    let said = config("[transport]\nkind = \"zeromq\"\nunprotected = true");
    said.validate().expect("it says what it is");
    assert_eq!(said.transport.unprotected(), Unprotected::Data);
    let first = config("[transport]\nunprotected = true");
    assert_eq!(first.transport.unprotected(), Unprotected::Accepted);
}
