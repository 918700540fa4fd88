"""How one level turns a ticket into the next: settings, protocols and the methods themselves."""
