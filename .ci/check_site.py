"""Report dead links inside the site, and everything that it loads from other servers."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING_TAGS = {"img", "link", "script", "source", "iframe"}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"} and value:
                self.anchors.add(value)
            if name in {"href", "src"} and value:
                self.links.append((tag, value))


def problems(site: Path) -> list[str]:
    """Return one line for each problem of the site."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    lines = []
    for path, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if tag in LOADING_TAGS and parts.scheme != "data":
                    lines.append(f"{path}: loads {link}")
                continue
            link_path = unquote(parts.path)
            # 404.html may be shown at any address, so its links begin at the root.
            base = site if link_path.startswith("/") else path.parent
            target = (base / link_path.lstrip("/")).resolve() if link_path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                lines.append(f"{path}: dead link {link}")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors and anchor != "__top":
                    lines.append(f"{path}: no such anchor {link}")
    styles = ((path, path.read_text("utf-8")) for path in site.rglob("*.css"))
    loading = (path for path, text in styles if "url(http" in text or "@import" in text)
    return lines + [f"{path}: loads from another server" for path in loading]


def main() -> None:
    """Print the problems; exit with 1 if there are any."""
    site = Path(sys.argv[1]).resolve()
    lines = problems(site)
    print(*lines, sep="\n", end="\n" if lines else "")
    if lines or not (site / "index.html").is_file():
        sys.exit(1)
    print(f"{len(list(site.rglob('*.html')))} pages, no dead link, nothing from other servers")


main()
