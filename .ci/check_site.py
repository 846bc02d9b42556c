"""Find dead links inside of the site, and what it loads from outside."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img", "link", "script", "source", "iframe"}


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


def faults(site: Path) -> list[str]:
    """Tell what is wrong with the site."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if tag in LOADED and parts.scheme != "data":
                    found.append(f"{path}: loads {link}")
                continue
            where = unquote(parts.path)
            # 404.html may be shown at any address, so its links begin at the root.
            base = site if where.startswith("/") else path.parent
            target = (base / where.lstrip("/")).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{path}: there is no {link}")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors and anchor != "__top":
                    found.append(f"{path}: there is no such place {link}")
    styles = ((path, path.read_text("utf-8")) for path in site.rglob("*.css"))
    loading = (path for path, text in styles if "url(http" in text or "@import" in text)
    return found + [f"{path}: loads from elsewhere" for path in loading]


def main() -> None:
    """Print what is wrong; end with 1 if anything is."""
    site = Path(sys.argv[1]).resolve()
    found = faults(site)
    print(*found, sep="\n", end="\n" if found else "")
    if found or not (site / "index.html").is_file():
        sys.exit(1)
    print(f"{len(list(site.rglob('*.html')))} pages, no dead link inside, nothing from elsewhere")


main()
