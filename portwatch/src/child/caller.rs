//! Whose command it is: the user who called sudo, not the root that portwatch runs as.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt,
};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// Variables by which sudo, doas and pkexec tell who called them. A command that runs as that user
/// again does not run under any of them.
const TOLD_BY: [&str; 7] = [
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_USER",
    "SUDO_COMMAND",
    "SUDO_HOME",
    "DOAS_USER",
    "PKEXEC_UID",
];

/// Why the caller could not be found out. Falling back to root instead would run a command with
/// rights its user did not mean to give it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallerError {
    /// A variable that holds no user.
    #[error("cannot tell who called: {variable}={value} is no user")]
    NoSuchUser {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// The user database does not answer.
    #[error("cannot look up the groups of {user}: {source}")]
    Groups {
        /// The user.
        user: String,
        /// Why.
        source: nix::Error,
    },
}

/// Who called, as the environment has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Caller {
    Id { uid: u32, gid: Option<u32> },
    Name(String),
    Nobody,
}

/// The user a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User and groups to change to; `None` to stay what we are.
    pub credentials: Option<Credentials>,
    /// Variables to set, or with `None` to take away.
    pub environment: Vec<(OsString, Option<OsString>)>,
    /// What the user should know about it, a line for stderr.
    pub note: Option<String>,
}

/// Ids of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

impl RunAs {
    /// Finds out who called this process: SUDO_UID, else DOAS_USER, else PKEXEC_UID, else the
    /// current user. Without root there is nothing to give up, so it is the current user then.
    ///
    /// # Errors
    ///
    /// A variable that names no user, or a user database that does not answer.
    pub fn caller() -> Result<Self, CallerError> {
        let variable = |name: &str| std::env::var(name).ok();
        let root = geteuid().is_root();
        match if root {
            caller(variable)?
        } else {
            Caller::Nobody
        } {
            Caller::Id { uid, gid } => {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                Self::user(uid, gid, user)
            }
            Caller::Name(name) => match User::from_name(&name) {
                Ok(Some(user)) => Self::user(user.uid.as_raw(), None, Some(user)),
                _ => Err(CallerError::NoSuchUser {
                    variable: "DOAS_USER",
                    value: name,
                }),
            },
            Caller::Nobody => Ok(Self::current(geteuid())),
        }
    }

    fn current(uid: Uid) -> Self {
        let name = User::from_uid(uid)
            .ok()
            .flatten()
            .map_or_else(|| format!("user {uid}"), |user| user.name);
        Self {
            credentials: None,
            environment: Vec::new(),
            note: Some(format!(
                "the command runs as {name}, the current user{}",
                if uid.is_root() {
                    ": neither sudo, doas nor pkexec says who called"
                } else {
                    ""
                }
            )),
        }
    }

    fn user(uid: u32, gid: Option<u32>, user: Option<User>) -> Result<Self, CallerError> {
        let set = |name: &str, value: OsString| (name.into(), Some(value));
        let mut environment: Vec<_> = TOLD_BY.iter().map(|name| (name.into(), None)).collect();
        let Some(user) = user else {
            // An id without an entry, as in containers: no name, no home, no other groups.
            let gid = gid.unwrap_or(uid);
            environment.extend(["USER", "LOGNAME", "HOME"].map(|name| (name.into(), None)));
            return Ok(Self {
                credentials: Some(Credentials {
                    uid,
                    gid,
                    groups: vec![gid],
                }),
                environment,
                note: None,
            });
        };
        let gid = gid.unwrap_or(user.gid.as_raw());
        let groups = CString::new(user.name.as_str())
            .map_err(|_| nix::Error::EINVAL)
            .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)))
            .map_err(|source| CallerError::Groups {
                user: user.name.clone(),
                source,
            })?;
        environment.extend([
            set("USER", user.name.clone().into()),
            set("LOGNAME", user.name.into()),
            set("HOME", user.dir.into_os_string()),
            set("SHELL", user.shell.into_os_string()),
        ]);
        Ok(Self {
            credentials: Some(Credentials {
                uid,
                gid,
                groups: groups.into_iter().map(Gid::as_raw).collect(),
            }),
            environment,
            note: None,
        })
    }

    /// The environment of the command: ours with the changes, each as `NAME=value`.
    pub(super) fn environment(&self) -> Vec<CString> {
        let ours = std::env::vars_os()
            .filter(|(name, _)| !self.environment.iter().any(|(changed, _)| changed == name));
        let changed = self
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        ours.chain(changed)
            .filter_map(|(name, value)| {
                let mut pair = name.into_vec();
                pair.push(b'=');
                pair.extend(value.into_vec());
                // An environment holds no NUL, so nothing is ever left out here.
                CString::new(pair).ok()
            })
            .collect()
    }
}

fn caller(variable: impl Fn(&str) -> Option<String>) -> Result<Caller, CallerError> {
    let id = |name: &'static str| {
        variable(name)
            .map(|value| {
                // -1 means "leave it" to setresuid(2).
                match value.parse::<u32>() {
                    Ok(id) if id != u32::MAX => Ok(id),
                    _ => Err(CallerError::NoSuchUser {
                        variable: name,
                        value,
                    }),
                }
            })
            .transpose()
    };
    if let Some(uid) = id("SUDO_UID")? {
        return Ok(Caller::Id {
            uid,
            gid: id("SUDO_GID")?,
        });
    }
    if let Some(name) = variable("DOAS_USER") {
        return Ok(Caller::Name(name));
    }
    Ok(match id("PKEXEC_UID")? {
        Some(uid) => Caller::Id { uid, gid: None },
        None => Caller::Nobody,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn from(environment: &[(&str, &str)]) -> Result<Caller, CallerError> {
        caller(|name| {
            let (_, value) = environment.iter().find(|(set, _)| *set == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn sudo_goes_before_doas_before_pkexec() {
        let id = |uid, gid| Ok(Caller::Id { uid, gid });
        let all = [
            ("PKEXEC_UID", "3"),
            ("DOAS_USER", "anna"),
            ("SUDO_GID", "2"),
            ("SUDO_UID", "1"),
        ];
        assert_eq!(from(&all), id(1, Some(2)));
        assert_eq!(from(&all[..3]), Ok(Caller::Name("anna".to_owned())));
        assert_eq!(from(&all[..1]), id(3, None));
        assert_eq!(from(&[]), Ok(Caller::Nobody));
        assert_eq!(from(&[("SUDO_UID", "0")]), id(0, None));
    }

    #[test]
    fn a_caller_that_makes_no_sense_is_not_taken_for_root() {
        for value in ["", "anna", "-1", "4294967295", "1 "] {
            assert!(from(&[("SUDO_UID", value)]).is_err(), "{value:?}");
            assert!(from(&[("PKEXEC_UID", value)]).is_err(), "{value:?}");
            assert!(
                from(&[("SUDO_UID", "1"), ("SUDO_GID", value)]).is_err(),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_user_brings_groups_and_home() {
        let root = User::from_uid(Uid::from_raw(0)).unwrap();
        let run_as = RunAs::user(0, None, root).unwrap();
        let credentials = run_as.credentials.as_ref().unwrap();
        assert_eq!((credentials.uid, credentials.gid), (0, 0));
        assert!(credentials.groups.contains(&0));
        let environment = run_as.environment();
        assert!(environment.contains(&c"USER=root".to_owned()));
        assert!(environment.contains(&c"HOME=/root".to_owned()));
        assert!(
            environment
                .iter()
                .any(|pair| pair.as_bytes().starts_with(b"PATH="))
        );
    }

    #[test]
    fn a_user_without_an_entry_has_no_name_and_no_home() {
        let run_as = RunAs::user(4_000_000_001, Some(7), None).unwrap();
        assert_eq!(
            run_as.credentials,
            Some(Credentials {
                uid: 4_000_000_001,
                gid: 7,
                groups: vec![7]
            })
        );
        for pair in run_as.environment() {
            let name = pair.as_bytes().split(|&byte| byte == b'=').next().unwrap();
            assert!(![&b"HOME"[..], b"USER", b"LOGNAME", b"SUDO_UID"].contains(&name));
        }
    }

    #[test]
    fn staying_the_current_user_is_said() {
        let run_as = RunAs::current(Uid::from_raw(0));
        assert_eq!(run_as.credentials, None);
        assert!(run_as.note.unwrap().contains("root"));
    }
}
