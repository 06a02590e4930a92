"""What mail is measured against: real servers of other people, each on a folder of its own."""
