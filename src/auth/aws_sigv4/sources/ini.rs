//! The files of the AWS SDKs: `~/.aws/credentials` and `~/.aws/config` (AWS SDKs and Tools Reference Guide, "Shared
//! config and credentials files").
//!
//! Sections in brackets, `name = value` lines in them. A value that goes on over indented lines holds settings of its
//! own, of which none is about keys, so these lines are left out.

use std::{collections::BTreeMap, fmt};

use crate::secret::Secret;

/// Which of the two files a text is: they name profiles differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[name]`
    Credentials,
    /// `[default]` and `[profile name]`
    Config,
}

/// Settings of one profile, by name in lower case. Any of them may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Profile(BTreeMap<String, Secret>);

impl Profile {
    /// The value of a setting that is set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose).filter(|value| !value.is_empty())
    }

    /// The name of the first setting that begins so.
    pub(super) fn any_beginning(&self, prefix: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| name.starts_with(prefix))
    }

    /// Takes over every setting of `other`.
    fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// All profiles, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The profile of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Adds the profiles of a file; what it sets wins over what is there. The error names the line and holds nothing
    /// of it.
    pub(super) fn add(&mut self, kind: Kind, text: &str) -> Result<(), String> {
        let mut current: Option<(String, Profile)> = None;
        let mut skipping = false;
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let number = at + 1;
            let is_indented = line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') && !is_indented {
                self.put(current.take());
                let name = section(line).ok_or_else(|| format!("line {number}: `[` without its `]`"))?;
                current = profile_name(kind, &name).map(|name| (name, Profile::default()));
                skipping = current.is_none();
                continue;
            }
            let Some((_, profile)) = &mut current else {
                if skipping {
                    continue;
                }
                return Err(format!("line {number} stands before the first `[section]`"));
            };
            if is_indented {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number} is no `name = value`"))?;
            let value = Secret::new(without_comment(value.trim()));
            profile.0.insert(name.trim().to_ascii_lowercase(), value);
        }
        self.put(current);
        Ok(())
    }

    fn put(&mut self, section: Option<(String, Profile)>) {
        if let Some((name, profile)) = section {
            self.0.entry(name).or_default().merge(profile);
        }
    }
}

/// What stands between the brackets.
fn section(line: &str) -> Option<String> {
    let inner = line.strip_prefix('[')?;
    let end = inner.find(']')?;
    let rest = inner[end + 1..].trim_start();
    (rest.is_empty() || rest.starts_with(['#', ';'])).then(|| inner[..end].trim().to_owned())
}

/// The profile that a section is about; `None` for other sections.
fn profile_name(kind: Kind, section: &str) -> Option<String> {
    let unquoted = |name: &str| {
        let name = name.trim();
        let inner = ['"', '\''].iter().find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote));
        inner.unwrap_or(name).to_owned()
    };
    let named = section.strip_prefix("profile").filter(|rest| rest.starts_with([' ', '\t'])).map(unquoted);
    match kind {
        Kind::Credentials => Some(named.unwrap_or_else(|| unquoted(section))),
        Kind::Config => named.or_else(|| (section == "default").then(|| section.to_owned())),
    }
    .filter(|name| !name.is_empty())
}

/// A comment within a line begins after a blank.
fn without_comment(value: &str) -> &str {
    let ends = [" #", " ;", "\t#", "\t;"].iter().filter_map(|mark| value.find(mark));
    ends.min().map_or(value, |end| value[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: Kind, text: &str) -> Result<Profiles, String> {
        let mut profiles = Profiles::default();
        profiles.add(kind, text).map(|()| profiles)
    }

    #[test]
    fn sections_settings_and_comments() {
        let text = "\u{feff}# top\r\n[default]\r\naws_access_key_id = A#1 # why\r\nAWS_Secret_Access_Key=a=b/+==\r\n\
                    ; no\r\n[ other ] ; no\nregion=\ns3 =\n  max_queue_size = 1\n";
        let profiles = read(Kind::Credentials, text).unwrap();
        let default = profiles.get("default").unwrap();
        assert_eq!(default.get("aws_access_key_id"), Some("A#1"));
        assert_eq!(default.get("aws_secret_access_key"), Some("a=b/+=="));
        let other = profiles.get("other").unwrap();
        assert_eq!((other.get("region"), other.get("max_queue_size")), (None, None));
        assert_eq!(profiles.names().collect::<Vec<_>>(), ["default", "other"]);
        assert!(!format!("{profiles:?}").contains("A#1"));
    }

    #[test]
    fn the_config_file_names_profiles_in_its_own_way() {
        let text = "[default]\na=1\n[profile dev]\na=2\n[profile \"two words\"]\na=3\n[dev2]\na=4\n[sso-session x]\n\
                    nonsense\n[profile\tdev]\nb=5\n";
        let profiles = read(Kind::Config, text).unwrap();
        assert_eq!(profiles.names().collect::<Vec<_>>(), ["default", "dev", "two words"]);
        let dev = profiles.get("dev").unwrap();
        assert_eq!((dev.get("a"), dev.get("b")), (Some("2"), Some("5")));
    }

    #[test]
    fn the_file_added_last_wins_setting_by_setting() {
        let mut profiles = read(Kind::Config, "[profile p]\na=1\nregion=r\n").unwrap();
        profiles.add(Kind::Credentials, "[p]\na=2\n").unwrap();
        let profile = profiles.get("p").unwrap();
        assert_eq!((profile.get("a"), profile.get("region")), (Some("2"), Some("r")));
    }

    #[test]
    fn what_is_no_such_file_is_refused_without_repeating_it() {
        for text in ["CANARY=1\n", "[p\nCANARY=1\n", "[p]\nCANARY\n"] {
            let error = read(Kind::Credentials, text).unwrap_err();
            assert!(error.contains("line ") && !error.contains("CANARY"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "([\\[\\]=#; \\n]|profile|a|\\PC){0,60}") {
            for kind in [Kind::Credentials, Kind::Config] {
                let _ = read(kind, &text);
            }
        }

        #[test]
        fn values_come_back(value in "[A-Za-z0-9/+=]{1,40}") {
            let profiles = read(Kind::Credentials, &format!("[p]\nx = {value}\n")).unwrap();
            prop_assert_eq!(profiles.get("p").unwrap().get("x"), Some(value.as_str()));
        }
    }
}
