"""Images of a manifest: a CSV that names files in public git repositories, each with its sha256.

    python -m data.download manifest weights/manifest.csv --output datasets/manifest --part train,calibrate

The columns repo, commit, path, sha256, label and generator are needed.  A row becomes
OUTPUT/<part>/<generator, or real_<source>>/{0_real,1_fake}/<row, from 0>_<name>.<extension of its format>,
the bytes as they are.  The folder of the part comes from the column `part`, else `split`; without both
there is none.  Files come over HTTPS, or from git copies below --mirror.  The same command again resumes.
"""

import hashlib
import re
import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import requests
from tqdm import tqdm

from common import (
    Parser,
    UserError,
    file_path,
    names_list,
    owned,
    positive_int,
    read_table,
    sha256,
    written_whole,
)
from data.folder import EXTENSIONS
from data.parquet import LABEL_FOLDERS, THERE, WRITTEN, ending_of, folder_name, label_of
from data.sources import RETRIES, TIMEOUT

COLUMNS = ("repo", "commit", "path", "sha256", "label", "generator")
URL = "https://raw.githubusercontent.com/{repo}/{commit}/{path}"
SHAPES = {"repo": r"[\w-]+/(?!\.\.?$)[\w.-]+", "commit": r"[0-9a-f]{7,64}", "sha256": r"[0-9a-f]{64}"}
UNSAFE_PATH = re.compile(r"^/|[\n\0]|(^|/)\.\.?(/|$)|^$")
BUSY = {408, 429, 500, 502, 503, 504}  # answers of a server that may serve later
ROWS_AT_ONCE = 16  # that one connection fetches
STEM = 60  # characters of a file's name that are kept


def fetch(argv):
    """Fetches what a command line asks for; returns (the summary in words, how many images are missing)."""
    opt = parse(argv)
    rows, problems = select(read_table(opt.file, COLUMNS), opt)
    if opt.mirror and not shutil.which("git"):
        raise UserError("--mirror needs the program git")
    counts, jobs = Counter(), {}
    for row in rows:
        jobs.setdefault(row["repo"] if opt.mirror else row["number"] // ROWS_AT_ONCE, []).append(row)
    with owned(opt.output), tqdm(total=len(rows), unit="img", dynamic_ncols=True) as progress:
        pool = ThreadPoolExecutor(opt.num_threads)
        try:
            for job in as_completed([pool.submit(provide, rows, opt, progress) for rows in jobs.values()]):
                done, failed = job.result()
                counts += done
                problems += failed
        finally:
            pool.shutdown(cancel_futures=True)
    return summary(opt.output, counts, problems), sum(images for images, _ in problems)


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m data.download manifest", description="Fetches the images of a manifest.")
    add = parser.add_argument
    add("file", type=file_path, metavar="FILE", help=f"CSV with the columns {', '.join(COLUMNS)}")
    add("--output", type=file_path, required=True, help="folder to write")
    add("--part", type=names_list, default=(), help="only rows of these parts [default: all]")
    add("--real", type=names_list, default=(), help="labels of reals, if others than 0 and real")
    add("--no_palette", action="store_true", help="leave out rows whose pixel_state is palette: dithered")
    add("--no_marks", action="store_true", help="leave out rows with a word in the column mark: a logo")
    add("--mirror", type=file_path, help="git copies <owner>+<name>/repo to read, instead of a server")
    add("--url", default=URL, help="where a server has a file")
    add("--num_threads", type=positive_int, default=4, help="files, or git copies, read side by side")
    opt = parser.parse_args(argv)
    opt.output = Path(opt.output)
    try:
        if not opt.url.format(repo="", commit="", path="").startswith(("https://", "http://")):
            raise ValueError
    except (KeyError, IndexError, ValueError, AttributeError):
        parser.error(f"--url is http(s)://..., with {{repo}}, {{commit}}, {{path}} in it; got {opt.url}")
    return opt


# ----- which rows -----


def select(table, opt):
    """(the rows to fetch, each with `number` and `target`; [(images, problem)] of those that cannot be)."""
    if not table:
        raise UserError(f"{opt.file} has no rows")
    names = list(filter(None, table[0]))
    part = next((name for name in ("part", "split") if name in names), None)
    require_columns(opt, names, {row[part] for row in table} if part else set())
    rows, problems, seen = [], [], {}
    for number, row in enumerate(table):
        folder = row[part] or "" if part else ""
        try:
            check(row)
            row |= {"label": label_of(row["label"], opt.real), "number": number}
            kind = (row["label"], folder)
            first, other = seen.setdefault(row["sha256"], (number, kind))
            if kind != other:
                raise UserError(f"the image of row {first} again, with another label or part")
        except UserError as error:
            problems.append((1, f"row {number}: {error}"))
            continue
        if first != number:
            problems.append((0, f"row {number}: the image of row {first} again, left out"))
        elif is_wanted(row, folder, opt):
            rows.append(row | {"target": target_of(row, folder, opt.output)})
    return rows, problems


def require_columns(opt, names, parts):
    """Raises UserError for a flag about a column, or a part, that the manifest does not have."""
    wrong = {
        "--no_palette needs the column pixel_state": opt.no_palette and "pixel_state" not in names,
        "--no_marks needs the column mark": opt.no_marks and "mark" not in names,
        "--part needs the column part or split": opt.part and not parts,
    }
    for problem, is_so in wrong.items():
        if is_so:
            raise UserError(f"{opt.file}: {problem}; it has {', '.join(names)}")
    if unknown := sorted(set(opt.part) - parts):
        known = ", ".join(sorted(filter(None, parts))) or "(all cells are empty)"
        raise UserError(f"{opt.file}: --part {', '.join(unknown)} is not one of its parts {known}")


def is_wanted(row, part, opt):
    """Whether the flags leave a row in."""
    palette = opt.no_palette and row["pixel_state"] == "palette"
    mark = opt.no_marks and row["mark"]
    return not palette and not mark and (not opt.part or part in opt.part)


def check(row):
    """Raises UserError for a row whose cells cannot name a file in a repository."""
    for name, shape in SHAPES.items():
        if not re.fullmatch(shape, row[name] or ""):
            raise UserError(f"{name} {row[name]!r} is not of the form {shape}")
    if UNSAFE_PATH.search(row["path"] or ""):
        raise UserError(f"path {row['path']!r} does not name a file inside the repository")


def target_of(row, part, output):
    """Where a row's file goes, without its extension."""
    source = folder_name(row["generator"] if row["label"] else f"real_{row['generator']}")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(row["path"]).stem)[:STEM]
    folder = output / folder_name(part) if part else output
    return folder / source / LABEL_FOLDERS[row["label"]] / f"{row['number']:05d}_{stem}"


# ----- one file after the other -----


def provide(rows, opt, progress):
    """Writes rows, with --mirror of one repository; returns (Counter of outcomes, [(images, problem)])."""
    there = {row["number"] for row in rows if is_there(row)}
    progress.update(len(there))
    counts, problems = Counter({THERE: len(there)}), []
    waiting = [row for row in rows if row["number"] not in there]
    if not waiting:
        return counts, problems
    try:
        with closing(GitCopy(rows[0]["repo"], opt.mirror) if opt.mirror else Server(opt.url)) as source:
            for row in waiting:
                try:
                    write(row, source.read(row))
                    counts[WRITTEN] += 1
                except UserError as error:
                    problems.append((1, f"row {row['number']}: {row['repo']}: {row['path']!r}: {error}"))
                progress.update()
    except NoCopy as error:
        left = len(waiting) - counts[WRITTEN] - len(problems)
        progress.update(left)
        problems.append((left, f"{error} ({left} images)"))
    return counts, problems


def is_there(row):
    """Whether a row's file is there, with its content."""
    files = [row["target"].with_name(row["target"].name + ending) for ending in sorted(EXTENSIONS)]
    return any(file.is_file() and sha256(file) == row["sha256"] for file in files)


def write(row, content):
    """Writes a row's file; UserError for wrong content, or one that is not an image."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != row["sha256"]:
        raise UserError(f"wrong content (sha256 {digest})")
    with written_whole(row["target"].with_name(row["target"].name + ending_of(content)), binary=True) as file:
        file.write(content)


def summary(output, counts, problems):
    """What was written, and a line for each problem."""
    missing = sum(count for count, _ in problems)
    words = [f"{count:,} {what}" for what, count in sorted(counts.items()) if count]
    words += [f"{missing:,} missing"] if missing else []
    return "\n".join([f"{output}: {', '.join(words) or 'no rows'}", *sorted(text for _, text in problems)])


class Server:
    """Files over HTTPS; each is asked for again while the server is busy or not reached."""

    def __init__(self, url):
        self.url, self.session = url, requests.Session()

    def read(self, row):
        """The bytes of a row's file; UserError."""
        path = quote(row["path"], errors="surrogateescape")
        url = self.url.format(repo=row["repo"], commit=row["commit"], path=path)
        for attempt in range(RETRIES + 1):
            time.sleep(attempt)
            try:
                answer = self.session.get(url, timeout=TIMEOUT)
            except requests.RequestException as error:
                problem = f"no connection ({type(error).__name__})"
                continue
            if answer.ok:
                return answer.content
            problem = f"the server answers {answer.status_code} {answer.reason}"
            if answer.status_code not in BUSY:
                break
        raise UserError(problem)

    def close(self):
        """Ends the connections."""
        self.session.close()


class NoCopy(Exception):
    """A repository without a readable git copy."""


class GitCopy:
    """Files of a git copy of a repository, bare or with .git, through one process."""

    def __init__(self, repo, mirror):
        folder = Path(mirror) / repo.replace("/", "+") / "repo"
        folder = folder / ".git" if (folder / ".git").exists() else folder
        if not folder.is_dir():
            raise NoCopy(f"{repo}: no git copy at {folder}")
        command = ["git", "--git-dir", str(folder), "cat-file", "--batch"]
        self.repo, pipe = repo, subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)

    def read(self, row):
        """The bytes of a row's file; UserError."""
        try:
            self.process.stdin.write(f"{row['commit']}:{row['path']}\n".encode(errors="surrogateescape"))
            self.process.stdin.flush()
            head = self.process.stdout.readline().split()
        except BrokenPipeError:
            head = []
        if not head:
            raise NoCopy(f"{self.repo}: git cannot read its copy")
        if not head[-1].isdigit():
            raise UserError(f"not in the git copy at commit {row['commit']}")
        content = self.process.stdout.read(int(head[-1]))
        self.process.stdout.read(1)
        return content

    def close(self):
        """Ends the process."""
        self.process.communicate()
