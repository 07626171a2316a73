package agent

func systemAccounts() accounts { return passwdAccounts{} }

func readPasswd(string) []byte { return nil }
