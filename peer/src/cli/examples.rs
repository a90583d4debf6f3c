//! What `--help` shows to type, for the program and for verbs.

// Lines of 80 columns at most: clap would wrap longer ones in the middle of an example.
pub(super) const PROGRAM: &str = "\
Examples:
  potluck up --share ~/music                      share a folder, until Ctrl-C
  potluck up --share ~/music --tracker nas:7700   with a tracker you started
  potluck show                                    what everybody has
  potluck download film.mkv                       from all owners at once
  potluck download 'photos/*.jpg' docs/           globs and whole folders
  potluck shell                                   all this at a prompt

Verbs act through the peer that is running on the share folder; if there is
none, one is started for as long as the verb lasts.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 tracker or owners
unreachable, 5 nothing that verifies, 6 no space, 130 interrupted.";

pub(super) const DOWNLOAD: &str = "\
Examples:
  potluck download film.mkv                by name, from every owner at once
  potluck download 'photos/*.jpg' docs/    by glob, and a whole folder
  potluck download notes.txt@3f2a9c41      one of several contents under a name
  potluck download af1349b9f5f9…f3262      by content id, as b3sum prints it
  potluck download -o /tmp/ film.mkv       put it elsewhere
  potluck download --from node2 film.mkv   from that one peer only
  potluck download --origin https://example.org/film.mkv
                                           fetched once, then spread by peers
  potluck download film.mkv --origin https://example.org/film.mkv
                                           from its owners and from there
  potluck download -- --option             a name that looks like a flag

Every byte is verified before the file gets its name. Ctrl-C keeps what has
come in: give the same command again to go on from there. A file of an origin
that nobody holds yet has no content id to be verified with: give NAME@ID or an
id if you know it.";

pub(super) const SHOW: &str = "\
Examples:
  potluck show            everything
  potluck show film       names with \"film\" in them
  potluck show '*.iso'    a glob
  potluck show docs/      a folder
  potluck --json show | jq -r '.files[].path'

HELD: ✓ all of it is here, part: some of it, -: nothing.";

pub(super) const MANIFEST: &str = "\
Examples:
  potluck manifest > SUMS               everything that we share
  potluck manifest docs/ > SUMS         a folder
  potluck manifest --everybody '*.iso'  what others share
  cd /mnt/copy && b3sum --check SUMS    whether a copy is the same

A name that stands for several contents in the swarm is left out, and the exit
code is 2 then.";

pub(super) const CONFIG: &str = "\
Examples:
  potluck config                                    what holds, and why
  potluck config > ~/.config/potluck/potluck.toml   to begin a file with

What is typed comes before the environment (POTLUCK_…), that before the file,
that before defaults. The file is the one that --config or POTLUCK_CONFIG names,
or else ~/.config/potluck/potluck.toml, or else /etc/potluck/potluck.toml. Its
keys are the names of the flags, below [peer] for potluck and below [tracker]
for potluck-tracker:

  [peer]
  share = \"~/music\"
  tracker = [\"http://nas:7700\"]
  limit-up = \"10M\"";

pub(super) const DOCTOR: &str = "\
Give it the flags that the peer gets: potluck doctor --share ~/music. The exit
code is 0 if nothing has to be mended, and 1 if something has.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(potluck completions bash)
  potluck completions zsh > ~/.zfunc/_potluck
  potluck completions fish > ~/.config/fish/completions/potluck.fish";

pub(super) const LIMIT: &str = "\
Examples:
  potluck limit                       what holds now
  potluck limit up 10M                send at most 10 MiB a second
  potluck limit down 200M@08-18       receive at most 200 MiB a second by day
  potluck limit up 10M,200M@22-06:30  10 MiB, but 200 MiB a second by night
  potluck limit up off                without limit again

Units are K, M, G and T: KiB, MiB, GiB, TiB a second; a bare number is bytes.
Hours are local time. What is set here holds until the peer ends.";

pub(super) const UP: &str = "\
Examples:
  potluck up                             share ./share, and fetch when asked to
  potluck up --share docs --sync both    keep docs as everybody who syncs has it
  potluck up --sync receive --include '*.iso'
  potluck up --on-complete ./unpack.sh

--on-complete runs a program for each file that has come. Its arguments are the
path, content id and length; also POTLUCK_PATH, POTLUCK_CONTENT_ID, POTLUCK_LEN.";

pub(super) const SYNC: &str = "\
Examples:
  potluck sync            how it stands, and what each peer lacks
  potluck sync both       keep this folder the same as everybody's from now on
  potluck sync off        stop; the files stay
  potluck sync confirm    the deletes that were held back are meant
  potluck sync restore    they are not: bring those files back

What is set here holds until the peer ends; up --sync says what it starts with.";

pub(super) const TRASH: &str = "\
Examples:
  potluck trash                     all of it, the latest first
  potluck trash '*.txt'             what matches
  potluck trash restore notes.txt   bring it back to where it stood

Nothing that stands there now is replaced.";

pub(super) const WAIT: &str = "\
Examples:
  potluck wait              until this peer has everything
  potluck wait --all docs/  until everybody who syncs has that folder";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_keeps_its_lines() {
        for text in [PROGRAM, DOWNLOAD, SHOW, MANIFEST, CONFIG, DOCTOR, COMPLETIONS, LIMIT, UP, SYNC, TRASH, WAIT] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
