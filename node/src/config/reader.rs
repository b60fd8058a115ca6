//! Reads one setting after the other and keeps every complaint. A setting that is wrong yields a stand-in, which
//! [`Reader::finish`] never lets out.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use quorate_limits::Limit;

use super::{DefaultLimit, LogFormat, NODE_NAME_BYTES_MAX, NODES_MAX, SettingError};
use crate::doors::http::{DescriptorTemplate, TemplateError};
use crate::gossip::{ContactError, ContactList};
use crate::telemetry;

const HOST_BYTES_MAX: usize = 253;

/// What was given, unless it is empty.
pub(super) fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|text| !text.is_empty())
}

#[derive(Default)]
pub(super) struct Reader {
    errors: Vec<SettingError>,
}

impl Reader {
    fn refuse(&mut self, setting: &'static str, message: impl Into<String>) {
        self.errors.push(SettingError { setting, message: message.into() });
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<T, Vec<SettingError>> {
        if self.errors.is_empty() { Ok(settings) } else { Err(self.errors) }
    }

    pub(super) fn node_name(&mut self, value: Option<&str>, host_name: Option<&str>) -> String {
        let (name, source) = match (given(value), host_name) {
            (Some(name), _) => (name, ""),
            (None, Some(name)) => (name, "the host name "),
            (None, None) => {
                self.refuse("NODE_ID", "this machine tells no host name; name the node, as in NODE_ID=node-1");
                return String::new();
            }
        };
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.len() > NODE_NAME_BYTES_MAX || !name.bytes().all(is_allowed) || matches!(name, "." | "..") {
            self.refuse(
                "NODE_ID",
                format!(
                    "{source}{name:?} is no name for a node; use 1 to {NODE_NAME_BYTES_MAX} letters, digits, '.', \
                     '_' and '-', as in NODE_ID=node-1"
                ),
            );
        }
        name.to_owned()
    }

    pub(super) fn port(&mut self, setting: &'static str, value: Option<&str>, default: u16) -> u16 {
        let Some(text) = given(value) else { return default };
        match text.parse() {
            Ok(port) if port > 0 => port,
            _ => {
                self.refuse(
                    setting,
                    format!("{text:?} is no port; write a number from 1 to 65535, as in {setting}={default}"),
                );
                0
            }
        }
    }

    /// A port that is `distance` above the server's unless told.
    pub(super) fn port_beside(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        server: u16,
        distance: u16,
    ) -> u16 {
        if given(value).is_none() && server > u16::MAX - distance {
            self.refuse(
                setting,
                format!("SERVER_PORT + {distance} is beyond 65535; name a port, as in {setting}={}", 20001 + distance),
            );
            return 0;
        }
        self.port(setting, value, server.saturating_add(distance))
    }

    pub(super) fn refuse_equal_ports(&mut self, ports: &[(&'static str, u16)]) {
        for (i, (setting, port)) in ports.iter().enumerate() {
            // 0 stands for a port that was refused already.
            if let Some((other, _)) = ports[..i].iter().find(|(_, earlier)| earlier == port && *port != 0) {
                self.refuse(setting, format!("{port} is the port of {other} too; give each a port of its own"));
            }
        }
    }

    pub(super) fn address(&mut self, setting: &'static str, value: Option<&str>, default: IpAddr) -> IpAddr {
        let Some(text) = given(value) else { return default };
        if text == "localhost" {
            return Ipv4Addr::LOCALHOST.into();
        }
        unbracketed(text).parse().unwrap_or_else(|_| {
            self.refuse(
                setting,
                format!("{text:?} is no address of this machine; write an IP address, as in {setting}={default}"),
            );
            default
        })
    }

    pub(super) fn advertise_host(&mut self, value: Option<&str>) -> Option<String> {
        let host = unbracketed(given(value)?);
        let is_everywhere = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        if is_everywhere || !is_host(host) {
            self.refuse(
                "ADVERTISE_HOST",
                format!(
                    "{host:?} is no host that others can reach; write an address or a DNS name without a port, as in \
                     ADVERTISE_HOST=10.0.0.7"
                ),
            );
        }
        Some(host.to_owned())
    }

    pub(super) fn contacts(&mut self, value: Option<&str>) -> ContactList {
        given(value).unwrap_or_default().parse().unwrap_or_else(|error: ContactError| {
            let ContactError { position, entry, why } = error;
            self.refuse(
                "CLUSTERS",
                format!(
                    "entry {position}, {entry:?}, {why}; write HOST:DISCOVERY_PORT, comma separated, as in \
                     CLUSTERS=10.0.0.1:50011,[fd00::1]:50011"
                ),
            );
            ContactList::default()
        })
    }

    pub(super) fn bootstrap_expect(&mut self, value: Option<&str>, contacts: &ContactList) -> usize {
        const SETTING: &str = "BOOTSTRAP_EXPECT";
        let Some(text) = given(value) else {
            // One name may stand for many nodes; several names most likely stand for one each.
            let name = contacts.to_string();
            if contacts.len() == 1 && contacts.has_names() && !name.starts_with("localhost:") {
                self.refuse(
                    SETTING,
                    format!(
                        "CLUSTERS is the one DNS name {name}, which may stand for many nodes; say how many found the \
                         cluster, as in BOOTSTRAP_EXPECT=3 (0 waits for POST /v1/cluster/bootstrap)"
                    ),
                );
            }
            return contacts.len().max(1);
        };
        match text.parse() {
            Ok(count) if contacts.is_empty() && count > 1 => {
                self.refuse(
                    SETTING,
                    format!(
                        "{count} nodes cannot find each other without contacts; set CLUSTERS=HOST:DISCOVERY_PORT,…"
                    ),
                );
            }
            Ok(count) if count <= NODES_MAX => return count,
            _ => {
                self.refuse(
                    SETTING,
                    format!("{text:?} is no number of nodes; write a number from 0 to {NODES_MAX}, as in {SETTING}=3"),
                );
            }
        }
        1
    }

    pub(super) fn data_dir(&mut self, value: Option<&str>, raft_vol_dir: Option<&str>, node_name: &str) -> PathBuf {
        match (given(value), given(raft_vol_dir)) {
            (Some(dir), Some(other)) if dir != other => {
                self.refuse(
                    "DATA_DIR",
                    format!("is {dir:?}, but its other name RAFT_VOL_DIR says {other:?}; unset one of them"),
                );
                PathBuf::from(dir)
            }
            (Some(dir), _) | (None, Some(dir)) => PathBuf::from(dir),
            (None, None) => PathBuf::from("./data").join(node_name),
        }
    }

    pub(super) fn default_limit(&mut self, value: Option<&str>) -> Option<DefaultLimit> {
        let text = given(value).unwrap_or("10/60s");
        if text == "none" {
            return None;
        }
        let limit = text.split_once('/').and_then(|(hits, window)| {
            let window: quorate_crds::Duration = window.parse().ok()?;
            let is_window = (Limit::WINDOW_NS_MIN..=Limit::WINDOW_NS_MAX).contains(&window.as_nanos());
            let limit = hits.parse().ok().filter(|hits| *hits <= Limit::LIMIT_MAX && is_window)?;
            Some(DefaultLimit { limit, window: Duration::from_nanos(window.as_nanos()) })
        });
        if limit.is_none() {
            self.refuse(
                "DEFAULT_LIMIT",
                format!(
                    "{text:?} is no limit; write HITS/WINDOW, as in DEFAULT_LIMIT=10/60s, with at most {} hits and a \
                     window from 1ms to 8784h, or DEFAULT_LIMIT=none",
                    Limit::LIMIT_MAX
                ),
            );
        }
        limit
    }

    pub(super) fn authorize(&mut self, value: Option<&str>) -> DescriptorTemplate {
        let Some(text) = given(value) else { return DescriptorTemplate::default() };
        text.parse().unwrap_or_else(|TemplateError { entry, why }| {
            self.refuse(
                "AUTHORIZE_DESCRIPTORS",
                format!(
                    "{entry:?} {why}; write key=header:NAME or key=uri, comma separated, as in \
                     AUTHORIZE_DESCRIPTORS=client_id=header:X-Client-Id,path=uri"
                ),
            );
            DescriptorTemplate::default()
        })
    }

    pub(super) fn switch(&mut self, setting: &'static str, value: Option<&str>, default: bool) -> bool {
        let Some(text) = given(value) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.refuse(
                setting,
                format!("{text:?} is neither true nor false; write {setting}=true or {setting}=false"),
            );
            default
        })
    }

    pub(super) fn number<T>(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        allowed: RangeInclusive<T>,
        default: T,
    ) -> T
    where
        T: FromStr + PartialOrd + Copy + Display,
    {
        let Some(text) = given(value) else { return default };
        text.parse().ok().filter(|number| allowed.contains(number)).unwrap_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            self.refuse(
                setting,
                format!("{text:?} is no number from {least} to {most}; write one, as in {setting}={default}"),
            );
            default
        })
    }

    pub(super) fn log_filter(&mut self, value: Option<&str>) -> String {
        // The filter's own grammar knows no spaces.
        let filter = given(value).unwrap_or("info").replace(' ', "");
        if let Err(reason) = telemetry::check_filter(&filter) {
            self.refuse("LOG", format!("{reason}; write a level or target=level, as in LOG=info,quorate_node=debug"));
        }
        filter
    }

    pub(super) fn log_format(&mut self, value: Option<&str>) -> LogFormat {
        match given(value) {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.refuse("LOG_FORMAT", format!("{other:?} is no format; write LOG_FORMAT=text or LOG_FORMAT=json"));
                LogFormat::Text
            }
        }
    }

    pub(super) fn dns_server(&mut self, value: Option<&str>) -> Option<SocketAddr> {
        let text = given(value)?;
        let address = text.parse().or_else(|_| unbracketed(text).parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        if address.is_err() {
            self.refuse("DNS_SERVER", format!("{text:?} is no address; write IP:PORT, as in DNS_SERVER=10.96.0.10:53"));
        }
        address.ok()
    }

    /// Bytes: a number and `KiB`, `MiB` or `GiB`; without a unit only 0.
    pub(super) fn size(&mut self, setting: &'static str, value: Option<&str>, default: u64) -> u64 {
        let Some(text) = given(value) else { return default };
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (number, shift) = unit.unwrap_or((text, 0));
        match number.trim().parse::<u64>() {
            Ok(0) => 0,
            Ok(number) if shift > 0 && number <= u64::MAX >> shift => number << shift,
            _ => {
                let example =
                    format!("{text:?} is no size; write a number with KiB, MiB or GiB, as in {setting}=64MiB");
                self.refuse(setting, example);
                default
            }
        }
    }

    pub(super) fn duration(&mut self, setting: &'static str, value: Option<&str>, default: Duration) -> Duration {
        let Some(text) = given(value) else { return default };
        match text.parse::<quorate_crds::Duration>() {
            Ok(span) => Duration::from_nanos(span.as_nanos()),
            Err(error) => {
                self.refuse(setting, error.to_string());
                default
            }
        }
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_host(host: &str) -> bool {
    let is_name = |name: &str| {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        name.split('.').all(|label| (1..=63).contains(&label.len()) && label.bytes().all(is_allowed))
    };
    host.len() <= HOST_BYTES_MAX && (host.parse::<IpAddr>().is_ok() || is_name(host))
}
