"""The corpora: mails whose right reading is known, sent through contactd and compared."""
