"""All SQL that runs outside migrations, one file per subject; nothing here commits."""
