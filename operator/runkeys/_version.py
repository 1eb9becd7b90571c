"""The one place where the version stands; the build and the chart's test read it from here."""

__version__ = "0.1.0"
