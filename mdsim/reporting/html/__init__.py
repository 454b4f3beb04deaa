"""Self-contained HTML pages of sections: text, tables, figures, listings and a 3D replay."""
