//! The TOML file, and what comes of it together with the flags.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    error::ConfigError,
    limits::is_tunnel_name,
    options::{IoMode, Options},
};

/// Longest configuration file that is read, in bytes.
pub const CONFIG_LEN_MAX: u64 = 1 << 20;

/// Where `wgx NAME` looks for `NAME.toml`.
const CONFIG_DIR: &str = "/etc/wgx";

/// What was asked for: flags over file. Nothing is checked against the machine yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the tunnel and of its TUN device.
    pub name: String,
    /// The options.
    pub options: Options,
}

impl Config {
    /// Puts `flags` over the options in `file`.
    ///
    /// # Errors
    ///
    /// A name that cannot be one, a file that cannot be read, or one that says something unknown.
    pub fn load(name: &str, flags: Options, file: Option<&Path>) -> Result<Self, ConfigError> {
        if !is_tunnel_name(name) {
            return Err(ConfigError::BadName { name: name.to_owned() });
        }
        let options = match file {
            Some(path) => flags.over(read(path)?),
            None => flags,
        };
        Ok(Self { name: name.to_owned(), options })
    }

    /// What a tunnel is configured as that is started by its name alone: as in `file`, else as in
    /// `/etc/wgx/NAME.toml` if there is one. Where no uplink is named, the rung is that of UDP sockets.
    ///
    /// # Errors
    ///
    /// As for [`Config::load`].
    pub fn of_tunnel(name: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::of_tunnel_in(Path::new(CONFIG_DIR), name, file)
    }

    fn of_tunnel_in(dir: &Path, name: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        // Before a path is made of it.
        let Self { name, .. } = Self::load(name, Options::default(), None)?;
        let unreadable = |path: &Path, source| ConfigError::FileUnreadable { path: path.to_owned(), source };
        let file = match file {
            // The process will not stay in this directory.
            Some(path) => Some(std::path::absolute(path).map_err(|error| unreadable(path, error))?),
            None => existing(dir.join(format!("{name}.toml")))
                .map_err(|(path, error)| unreadable(&path, error))?,
        };
        let mut config = Self::load(&name, Options::default(), file.as_deref())?;
        if config.options.io.is_none() && config.options.uplink.as_ref().is_none_or(Vec::is_empty) {
            config.options.io = Some(IoMode::Udp);
        }
        Ok(config)
    }

    /// The rung asked for.
    pub fn io(&self) -> IoMode {
        self.options.io.unwrap_or_default()
    }

    /// Every interface named, uplinks first, with the option that named it.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let uplinks = self.options.uplink.iter().flatten().map(|name| (name.as_str(), "--uplink"));
        let downlinks = self.options.downlink.iter().flatten().map(|name| (name.as_str(), "--downlink"));
        uplinks.chain(downlinks)
    }
}

/// `path` if there is anything, be it unreadable: only what is not there may be passed over.
fn existing(path: PathBuf) -> Result<Option<PathBuf>, (PathBuf, io::Error)> {
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path, error)),
    }
}

fn read(path: &Path) -> Result<Options, ConfigError> {
    let unreadable = |source| ConfigError::FileUnreadable { path: path.to_owned(), source };
    let mut text = String::new();
    // Bounded, so that a device or an endless pipe given by mistake does not hang the start.
    let file = File::open(path).map_err(unreadable)?;
    file.take(CONFIG_LEN_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > CONFIG_LEN_MAX {
        return Err(ConfigError::FileTooLong { path: path.to_owned(), limit: CONFIG_LEN_MAX });
    }
    let mut options: Options = toml::from_str(&text).map_err(|error| invalid(path, &text, &error))?;
    // A path in a file is meant from where the file is.
    if let (Some(peers), Some(directory)) = (&mut options.peers, path.parent()) {
        *peers = directory.join(&*peers);
    }
    Ok(options)
}

/// The parser's own message has several lines with the source in them; one line is enough here.
fn invalid(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.get(..offset).map_or(1, |before| before.split('\n').count());
    let problem = error.message().split('\n').collect::<Vec<_>>().join(" ");
    ConfigError::FileInvalid { path: path.to_owned(), line, problem }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str, text: impl AsRef<[u8]>) -> Self {
            let path = std::env::temp_dir().join(format!("wgx-config-{}-{test}.toml", std::process::id()));
            std::fs::write(&path, text).expect("write");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).expect("remove");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = Scratch::new(
            "flags",
            "uplink = ['eth0']\ndownlink = ['eth1']\nio = 'udp'\nmtu = 1300\nbusy-poll = true\nnapi-busy-poll = true\n\
             cores = '1-2'\npm-qos = false\n",
        );
        let flags = Options { io: Some(IoMode::AfXdp), busy_poll: Some(false), ..Options::default() };
        let config = Config::load("wg0", flags, Some(&file.0)).expect("config");
        assert_eq!(config.io(), IoMode::AfXdp);
        assert_eq!(config.options.busy_poll, Some(false));
        assert_eq!(config.options.napi_busy_poll, Some(true));
        assert_eq!(config.options.pm_qos, Some(false));
        assert_eq!(config.options.mtu, Some(1300));
        assert_eq!(config.options.cores, Some("1,2".parse().expect("list")));
        let interfaces: Vec<_> = config.interfaces().collect();
        assert_eq!(interfaces, [("eth0", "--uplink"), ("eth1", "--downlink")]);
    }

    #[test]
    fn a_tunnel_named_alone_takes_its_file_or_the_sockets() {
        let dir = std::env::temp_dir().join(format!("wgx-etc-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("create");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("write");
        write("full.toml", "uplink = ['eth0']\nmtu = 1300\n");
        write("bare.toml", "mtu = 1300\n");
        write("strict.toml", "io = 'af-xdp'\n");
        let of = |name, file| Config::of_tunnel_in(&dir, name, file).expect(name);
        assert_eq!(of("none", None).io(), IoMode::Udp);
        assert_eq!((of("full", None).io(), of("full", None).options.mtu), (IoMode::Auto, Some(1300)));
        assert_eq!((of("bare", None).io(), of("bare", None).options.mtu), (IoMode::Udp, Some(1300)));
        assert_eq!(of("strict", None).io(), IoMode::AfXdp);
        let named = dir.join("full.toml");
        assert_eq!(of("none", Some(&named)).options.mtu, Some(1300));
        assert_eq!(of("none", Some(&named)).name, "none");
        let missing = dir.join("missing.toml");
        let error = Config::of_tunnel_in(&dir, "none", Some(&missing)).expect_err("missing");
        assert!(matches!(error, ConfigError::FileUnreadable { .. }), "{error}");
        let error = Config::of_tunnel_in(&dir, "../full", None).expect_err("no name");
        assert!(matches!(error, ConfigError::BadName { .. }), "{error}");
        std::fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn a_relative_peers_path_is_meant_from_the_file() {
        let file = Scratch::new("peers", "peers = 'peers.conf'");
        let config = Config::load("wg0", Options::default(), Some(&file.0)).expect("config");
        assert_eq!(config.options.peers, Some(std::env::temp_dir().join("peers.conf")));
    }

    #[test]
    fn bad_files_are_refused_in_one_line_that_names_the_culprit() {
        let cases: &[(&str, &[u8], &[&str])] = &[
            ("unknown", b"io = 'udp'\nuplinks = ['eth0']\n", &["line 2", "uplinks"]),
            ("syntax", b"io = \n", &["line 1"]),
            ("type", b"mtu = 'big'\n", &["line 1", "u32"]),
            ("negative", b"mtu = -1\n", &["line 1", "-1"]),
            ("mode", b"io = 'dpdk'\n", &["line 1", "dpdk", "af-xdp"]),
            ("cores", b"cores = '5-1'\n", &["line 1", "backwards"]),
            ("list", b"uplink = 'eth0'\n", &["line 1", "sequence"]),
            ("bytes", b"io = '\xff'\n", &["UTF-8"]),
            ("twice", b"mtu = 1400\nmtu = 1300\n", &["line 2", "duplicate key"]),
            ("table", b"[peer]\nkey = 1\n", &["line 1", "peer"]),
        ];
        for (name, text, expected) in cases {
            let file = Scratch::new(name, text);
            let error = Config::load("wg0", Options::default(), Some(&file.0)).expect_err(name).to_string();
            assert!(!error.contains('\n'), "{name}: {error}");
            assert!(error.contains(".toml"), "{name}: {error}");
            for part in *expected {
                assert!(error.contains(part), "{name} lacks {part:?}: {error}");
            }
        }
    }

    #[test]
    fn a_file_that_never_ends_is_refused() {
        let error = Config::load("wg0", Options::default(), Some(Path::new("/dev/zero"))).expect_err("zero");
        assert!(matches!(error, ConfigError::FileTooLong { .. }), "{error}");
    }

    #[test]
    fn a_file_that_does_not_exist_is_named() {
        let error =
            Config::load("wg0", Options::default(), Some(Path::new("/no/such.toml"))).expect_err("none");
        assert!(error.to_string().contains("/no/such.toml"), "{error}");
    }

    #[test]
    fn names_follow_wireguards_rule() {
        for name in ["wg0", "a", "home-lan_1=+.x", "123456789012345"] {
            assert!(Config::load(name, Options::default(), None).is_ok(), "{name}");
        }
        for name in ["", "1234567890123456", "wg 0", "wg/0", "wg\n0", "wé", ".", "..", "wg0;"] {
            let error = Config::load(name, Options::default(), None).expect_err(name);
            assert!(matches!(error, ConfigError::BadName { .. }), "{name:?}: {error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}
