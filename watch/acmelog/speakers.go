package acmelog

// speakers are the dialects. A tie between signs goes to the first.
var speakers = []speaker{
	{Certbot, func() dialect { return &certbot{} }, signCertbot},
	{AcmeTiny, func() dialect { return &acmeTiny{} }, signAcmeTiny},
	{ModMD, func() dialect { return &modMD{} }, signModMD},
	{NginxACME, func() dialect { return &nginxACME{} }, signNginxACME},
	{HAProxy, func() dialect { return &haProxy{} }, signHAProxy},
	{Lego, func() dialect { return &lego{} }, signLego},
	{CertManager, func() dialect { return &certManager{} }, signCertManager},
	{AcmeSh, func() dialect { return newAcmeSh() }, signAcmeSh},
	{Step, func() dialect { return &smallstep{} }, signStep},
	{Acmetool, func() dialect { return &acmeTool{} }, signAcmetool},
	{Caddy, func() dialect { return &caddy{} }, signCaddy},
	{Traefik, func() dialect { return &traefik{} }, signTraefik},
	{Dehydrated, func() dialect { return &dehydrated{} }, signDehydrated},
	{Uacme, func() dialect { return &uacme{} }, signUacme},
	{Getssl, func() dialect { return &getssl{} }, signGetssl},
	{SimpLE, func() dialect { return &simpLE{} }, signSimpLE},
}
