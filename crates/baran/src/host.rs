//! What the machine tells about itself: whether it runs on battery, whether its way out is metered,
//! what hour it is.
//!
//! Linux tells the first two in files that anybody may read:
//!
//! - `/sys/class/power_supply`: it runs on battery if no mains supply is online and a battery of
//!   the machine (not of a mouse) discharges.
//! - `/proc/net/route`, `/proc/net/ipv6_route`, `/sys/class/net/*/uevent`: the way out is metered
//!   if every interface of a default route is a mobile modem or a Bluetooth phone. What the user
//!   told `NetworkManager` of a connection is behind D-Bus and is not read.
//!
//! What a system does not tell is taken for mains and unmetered.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Timelike;

/// Kinds of interfaces (`DEVTYPE`) that are paid by the byte more often than not.
const METERED: [&str; 2] = ["wwan", "bluetooth"];

/// The machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circumstances {
    pub(crate) is_on_battery: bool,
    pub(crate) is_metered: bool,
    /// By the machine's clock, 0 to 23.
    pub(crate) hour: u8,
}

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Host {
    /// Looks at it.
    pub(crate) fn look(&self) -> Circumstances {
        Circumstances {
            is_on_battery: self.is_on_battery(),
            is_metered: self.is_metered(),
            hour: u8::try_from(chrono::Local::now().hour()).expect("a day has 24 hours"),
        }
    }

    fn is_on_battery(&self) -> bool {
        let mut discharges = false;
        for supply in entries(&self.root.join("sys/class/power_supply")) {
            let value = |name| read(&supply.join(name));
            match value("type").as_str() {
                "Mains" | "USB" if value("online") == "1" => return false,
                "Battery" if value("scope") != "Device" => {
                    discharges |= value("status") == "Discharging";
                }
                _ => {}
            }
        }
        discharges
    }

    fn is_metered(&self) -> bool {
        let ways = self.ways_out();
        !ways.is_empty() && ways.iter().all(|interface| self.is_metered_interface(interface))
    }

    /// The interfaces of default routes.
    fn ways_out(&self) -> Vec<String> {
        let v4 = read(&self.root.join("proc/net/route"));
        let v4 = v4.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (interface, destination) = (fields.next()?, fields.next()?);
            let mask = fields.nth(5)?;
            (destination == "00000000" && mask == "00000000").then_some(interface)
        });
        let v6 = read(&self.root.join("proc/net/ipv6_route"));
        let v6 = v6.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let &[destination, "00", .., interface] = &fields[..] else { return None };
            // The kernel rejects what has no route at all by one at `lo`.
            (destination.bytes().all(|digit| digit == b'0') && interface != "lo")
                .then_some(interface)
        });
        v4.chain(v6).map(str::to_owned).collect()
    }

    fn is_metered_interface(&self, name: &str) -> bool {
        let about = read(&self.root.join("sys/class/net").join(name).join("uevent"));
        about
            .lines()
            .filter_map(|line| line.strip_prefix("DEVTYPE="))
            .any(|kind| METERED.contains(&kind))
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// What a file says; nothing if it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let host = Host { root: dir.path().to_owned() };
        (dir, host)
    }

    #[test]
    fn a_discharging_battery_of_the_machine_counts_without_mains() {
        const BATTERY: [(&str, &str); 2] = [
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/status", "Discharging\n"),
        ];
        const MAINS: (&str, &str) = ("sys/class/power_supply/AC/type", "Mains\n");
        const ONLINE: &str = "sys/class/power_supply/AC/online";
        let check = |more: &[(&str, &str)], expect| {
            let (_dir, host) = machine(&[&BATTERY, more].concat());
            assert_eq!(host.look().is_on_battery, expect, "{more:?}");
        };
        check(&[], true);
        check(&[MAINS, (ONLINE, "0\n")], true);
        check(&[MAINS, (ONLINE, "1\n")], false);
        check(&[("sys/class/power_supply/BAT0/status", "Full\n")], false);
        check(&[("sys/class/power_supply/BAT0/scope", "Device\n")], false);
        assert!(!machine(&[]).1.look().is_on_battery);
    }

    #[test]
    fn a_way_out_is_metered_if_all_are_modems() {
        const HEAD: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT";
        let modem = ("sys/class/net/wwan0/uevent", "DEVTYPE=wwan\nINTERFACE=wwan0\n");
        let wifi = ("sys/class/net/wlan0/uevent", "DEVTYPE=wlan\nINTERFACE=wlan0\n");
        let v4 = |interfaces: &[&str]| {
            let line =
                |name: &&str| format!("\n{name} 00000000 0100A8C0 0003 0 0 9 00000000 0 0 0");
            format!("{HEAD}\nwlan0 0000A8C0 00000000 0001 0 0 9 00FFFFFF 0 0 0")
                + &interfaces.iter().map(line).collect::<String>()
        };
        let zeros = "0".repeat(32);
        let v6 = |name: &str| {
            format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000005 00000000 00000003 {name}\n")
        };
        for (routes, routes_6, expect) in [
            (v4(&["wwan0"]), String::new(), true),
            (v4(&["wwan0", "wlan0"]), String::new(), false),
            (v4(&["wlan0"]), String::new(), false),
            (v4(&[]), v6("wwan0") + &v6("lo"), true),
            (v4(&["wwan0"]), v6("wlan0"), false),
            (v4(&[]), v6("lo"), false),
            (String::new(), String::new(), false),
        ] {
            let files = [("proc/net/route", &*routes), ("proc/net/ipv6_route", &*routes_6)];
            let (_dir, host) = machine(&[&files[..], &[modem, wifi]].concat());
            assert_eq!(host.look().is_metered, expect, "{routes} {routes_6}");
        }
    }
}
