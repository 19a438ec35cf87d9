package acmelog

// speakers are the dialects. A tie between signs goes to the first.
var speakers = []speaker{
	{AcmeTiny, func() dialect { return &acmeTiny{} }, signAcmeTiny},
}
